"""The speed of exported models, which `make bench-export` adds to `export/manifest.json`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipeline.records.base import Number, Record

Ratio = Annotated[list[Number], Field(min_length=3, max_length=3)]


class Speed(Record):
    """An exported model on a number of threads: medians over the rounds. Ratios are [median, minimum, maximum]."""

    file: str
    """Name of the exported file or folder in `export/`."""
    format: str
    precision: str
    """`fp32`, `fp16` or `int8`."""
    bytes: int
    """Size of the exported file or folder."""
    map50_95: Number | None
    """Of the export on the images of `compared_on`, from 0 to 1."""
    threads: int
    """Number of threads, and of cores where the system can limit them."""
    rounds: int
    """Number of rounds, in which all models take turns, each in a process of its own."""
    runs: int
    """Minimum number of runs of each measurement."""
    import_ms: Number
    """Time to import the runtime."""
    load_ms: Number
    """Time to load the model."""
    latency_ms: dict[str, Number]
    """Percentiles `p50` and `p95` of the network alone, for one input."""
    boxes: int
    """Number of boxes found in all images, with `0.25` as the threshold of every class."""
    images_per_s: Number
    """Images per second from file to boxes, one at a time on all threads."""
    images_per_s_at_once: Number
    """With one image per thread."""
    times_onnx: Ratio | None
    """Speed of the network alone relative to ONNX in 32 bits; null without such a model."""
    ultralytics_boxes: int | None
    """Number of boxes that `yolo predict` finds in the same images; null where that was not run."""
    ultralytics_images_per_s: Number | None
    """Of `yolo predict` on the same file, for ONNX in 32 bits without tiles; else null."""
    times_ultralytics: Ratio | None
    """`images_per_s` relative to that of `yolo predict`; null where that was not run."""


class Benchmark(Record):
    machine: str
    """Name of the processor, and number of cores."""
    images: int
    """Number of val images that each measurement uses."""
    rows: list[Speed]
    """One for each model and number of threads."""
