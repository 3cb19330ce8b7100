"""Cut large images into tiles that show every object whole.

choice    chooses size and overlap if the config leaves them open
grid      places the tiles of one image, and says which boxes each shows whole or cuts
windows   reads parts of an image file, decoded separately if the format allows it
cutting   writes the tiles of one image
split     cuts the images of a dataset, and accounts for its boxes
"""
