"""The code that goes to the device, on Python 3.8 or newer.

Every file but this one is copied into the bundles as it is, so it imports nothing of ours.
"""
