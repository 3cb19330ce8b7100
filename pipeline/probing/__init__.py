"""Measure how well frozen features describe labelled boxes, from one pass over some images, for `rank` and `train`.

sample         which images and boxes, and boxes of background
features       the outputs of a model's layers, averaged over each box
scores         LogME, H-score and a linear probe, in numpy
separability   how well the outputs of each layer tell the classes apart
"""
