"""Describe the JSON files of a run, each one once: stages write and read them through these descriptions.

`docs/files.md` is generated from the same descriptions.
"""
