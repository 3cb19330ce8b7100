"""Measure how well frozen features describe labelled boxes, from one pass over some images, for `rank` and `train`.

sample         chooses images and boxes, and draws boxes of background
wiring         runs the layers of a model
features       averages the outputs of a model's layers over each box
scores         computes LogME, H-score and a linear probe, in numpy
separability   measures how well the outputs of each layer tell the classes apart
"""
