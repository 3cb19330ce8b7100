"""Check image files: whether they can be read, and which show the same.

reading      size, digest and damage of a file, and images that have to be re-encoded
deep         images with more than 8 bits per channel
duplicates   images that show the same, resized, compressed, mirrored or rotated
"""
