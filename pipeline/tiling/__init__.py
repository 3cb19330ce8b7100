"""Cut large images into tiles that show every object whole.

choice    size and overlap if the config leaves them open
grid      where the tiles of one image lie, and which boxes each shows whole or cuts
windows   parts of an image file, decoded alone if the format allows that
cutting   the tiles of one image as files
split     the tiles of a data set, and the account of its boxes
"""
