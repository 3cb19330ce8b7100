"""The code that runs on the device, with Python 3.8 or newer.

Every file except this one is copied unchanged into the bundles, so none imports other parts of the pipeline.
"""
