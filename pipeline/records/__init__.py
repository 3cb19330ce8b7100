"""The JSON files of a run, each described once: stages write and read them through these descriptions.

`docs/files.md` is made from the same descriptions.
"""
