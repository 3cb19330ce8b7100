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
    loading       reads a file and reports all its errors at once

Everything that changes the result is here. What changes only where or how fast it runs (device, workers) is an option
of the command line instead, so that it never makes a stage run again.
"""
