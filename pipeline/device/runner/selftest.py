# SPDX-License-Identifier: AGPL-3.0-only
"""Check that this device gives the same detections as the machine that exported the model."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from .base import Detections, RunnerError, Spec
from .images import read_image
from .model import Model


def check_files(folder: Path) -> None:
    """Compare every file of the bundle with SHA256SUMS, which `sha256sum -c` reads too. Raises RunnerError."""
    listing = folder / "SHA256SUMS"
    if not listing.is_file():
        raise RunnerError(f"{listing}: does not exist; unpack the whole bundle again")
    try:
        rows = [line.split("  ", 1) for line in listing.read_text(encoding="utf-8").splitlines()]
        expected = {name: digest for digest, name in rows}
    except (UnicodeDecodeError, ValueError):
        raise RunnerError(f"{listing}: damaged; unpack the bundle again") from None
    if not {"model.json", "run.py"} <= expected.keys():
        raise RunnerError(f"{listing}: damaged; unpack the bundle again")
    for name, digest in expected.items():
        path = folder / name
        if not path.is_file():
            raise RunnerError(f"{path}: does not exist; unpack the whole bundle again")
        if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise RunnerError(f"{path}: changed since it was proven (its sha256 differs); unpack the bundle again")


def selftest(folder: Path, spec: Spec, threads: int) -> str:
    """Check the files, then run the golden images and compare the detections with the expected ones."""
    check_files(folder)
    boxes, images, most_px, most_score = compare(Model(folder, spec, threads), folder)
    largest = f"largest differences {most_px:.2g} px and {most_score:.1g} in score"
    return f"selftest passed: {images} images, {boxes} objects; {largest}"


def compare(model: Model, folder: Path) -> tuple[int, int, float, float]:
    """Return the numbers of boxes and images, and the largest differences of corners (pixels) and scores.

    Raises RunnerError if a difference exceeds the limits in `spec`, or if there is nothing to compare.
    """
    spec = model.spec
    expected = json.loads((folder / "golden" / "expected.json").read_text(encoding="utf-8"))
    limits, boxes, most_px, most_score = spec["selftest"], 0, 0.0, 0.0
    for golden in expected:
        image = read_image(folder / "golden" / golden["file"], spec["input"].get("bits"))
        # Low enough for every score within the limit, but not for the thousands of boxes below validation's `conf`.
        lowest = min(golden["lowest"] * 0.8, golden["lowest"] - limits["max_score"])
        try:
            detections = model.detect_all(image, max(lowest, spec["output"]["conf"]))
        except FloatingPointError as error:
            raise RunnerError(f"selftest FAILED: golden/{golden['file']}: {error}") from None
        known = Detections(
            np.array(golden["corners"]).reshape(-1, 4), np.array(golden["scores"]), np.array(golden["classes"])
        )
        px, score, lost = apart(known, detections)
        boxes, most_px, most_score = boxes + len(known), max(most_px, px), max(most_score, score)
        failure = ""
        if lost:
            failure = f"{lost} of {len(known)} objects not found"
        elif px > limits["max_box_px"]:
            failure = f"boxes {px:.3g} px apart, {limits['max_box_px']:g} allowed"
        elif score > limits["max_score"]:
            failure = f"scores {score:.3g} apart, {limits['max_score']:g} allowed"
        elif sum(detections.scores >= golden["lowest"] + limits["max_score"]) > len(known):
            failure = (
                f"{sum(detections.scores >= golden['lowest'] + limits['max_score'])} objects instead of {len(known)}"
            )
        if failure:
            raise RunnerError(
                f"selftest FAILED: golden/{golden['file']}: {failure}; "
                "compare the package versions with requirements.txt"
            )
    if not boxes:
        raise RunnerError(
            "selftest FAILED: the bundle expects no object in any golden image, so it compares nothing; export it again"
        )
    return boxes, len(expected), most_px, most_score


def apart(ours: Detections, theirs: Detections) -> tuple[float, float, int]:
    """Return the largest differences of corners and scores between paired boxes, and how many of ours have no pair."""
    free, px, score, lost = np.ones(len(theirs), bool), 0.0, 0.0, 0
    for corners, value, kind in zip(ours.corners, ours.scores, ours.classes):
        near = np.flatnonzero(free & (theirs.classes == kind) & (overlap(corners, theirs.corners) >= 0.5))
        if not len(near):
            lost += 1
            continue
        sides = np.abs(theirs.corners[near] - corners).max(axis=1)
        scores = np.abs(theirs.scores[near] - value)
        best = (sides + 10 * scores).argmin()
        free[near[best]] = False
        px, score = max(px, float(sides[best])), max(score, float(scores[best]))
    return px, score, lost


def overlap(one: Any, others: Any) -> Any:
    """Return the IoU of a box with each of the others, (n, 4) corners."""
    low, high = np.maximum(one[:2], others[:, :2]), np.minimum(one[2:], others[:, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=1)
    together = (one[2:] - one[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(axis=1) - shared
    return np.divide(shared, together, out=np.zeros(len(others)), where=together > 0)
