"""Look at the training images with the source's own features, to tell whether its backbone fits them.

Import it late: it imports torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.boxes import YoloDataset
from pipeline.errors import DataError
from pipeline.probing import sample
from pipeline.probing.separability import separability

IMAGES = 60  # seconds on one core; more images moved the share by two hundredths


def share_kept(model: Any, data: YoloDataset, imgsz: int, seed: int, record: Path) -> float | None:
    """Return how much of the best layer's separability the backbone's last layer keeps, from 0 to 1.

    Separability is the balanced accuracy of a linear probe that tells classes and background apart by what a layer
    makes of the boxes. `model` is the source's DetectionModel. The answer is kept in `record` with the accuracy by
    layer, so that a resumed training goes on with the same phases. None if there is nothing to tell apart, or no class
    is on two images, so that the probe could learn it from one and be judged on the other.
    """
    if not record.is_file():
        try:
            scenes = sample.draw(data, IMAGES, seed)
        except DataError:
            return None
        training = model.training
        accuracy = separability(model.float().eval(), scenes, imgsz)
        model.train(training)
        last = max(layer for layer in accuracy if layer < len(model.yaml["backbone"]))
        if not (best := max(accuracy.values())):
            return None
        kept = accuracy[last] / best
        by_layer = {str(layer): round(value, 3) for layer, value in accuracy.items()}
        files.write_json(record, {"kept": round(kept, 3), "accuracy": by_layer})
    return float(files.read_json(record)["kept"])
