"""Image files as they come: whether they can be read, and which show the same.

reading      size, digest and damage of a file, and images whose pixels have to be written anew
deep         images of more than 8 bits
duplicates   images that show the same, resized, compressed, mirrored or turned
"""
