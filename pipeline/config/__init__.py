"""Describe the YAML: one frozen section per stage.

    experiment    all sections of one file
    data          `convert` and `augment`
    tiles         `tiles`
    training      `train`
    rank          `rank`
    judging       `validate`, `inspect`, `report`
    export        `export`
    study         several ways to train, compared
    label         `label`
    loading       reads a file and tells all errors at once

What changes the result is here. What changes only where or how fast (device, workers) is not: it is an option of the
command line, so that it never makes a stage run again.
"""
