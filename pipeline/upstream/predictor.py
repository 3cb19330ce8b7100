"""Predict with every class of a box. Import it late: it imports torch and Ultralytics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ultralytics.engine.model import Model
from ultralytics.models.yolo.detect import DetectionPredictor
from ultralytics.utils.nms import non_max_suppression

from pipeline.device.runner import tiles
from pipeline.device.runner.base import Detections, Tiles


class BothPredictor(DetectionPredictor):  # type: ignore[misc]  # Ultralytics has no types
    """A predictor that returns the best class of each box and also keeps results with every class, from one pass.

    The former are not a subset of the latter: with every class, the second-best class of a box suppresses its
    neighbours too. `tensors` holds the last input and output of the network.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.every_label: list[Any] = []
        self.tensors: tuple[Any, Any] | None = None  # input (n, 3, h, w) and output of the network

    def postprocess(self, preds: Any, img: Any, orig_imgs: Any, **kwargs: Any) -> Any:
        output = preds[0] if isinstance(preds, (list, tuple)) else preds
        output = output[0] if isinstance(output, tuple) else output  # of a segmentation model: without the masks
        self.tensors = img, output
        # Ultralytics moves the boxes of each class by 7680 pixels, and 32 bits would round those of the last of many
        # classes to sixteenths of a pixel. Apple's GPUs have no 64 bits.
        exact = output if output.device.type == "mps" else output.double()
        found = (
            non_max_suppression(
                exact,
                self.args.conf,
                self.args.iou,
                multi_label=every_label,
                max_det=self.args.max_det,
                nc=0 if self.args.task == "detect" else len(self.model.names),
                # Without it, the last images of a batch would have no boxes on a busy machine.
                max_time_img=math.inf,
                end2end=getattr(self.model, "end2end", False),
            )
            for every_label in (False, True)
        )
        best, every = ([boxes[:, :6] for boxes in images] for images in found)  # without coefficients of masks
        self.every_label += self.construct_results(every, img, orig_imgs, **kwargs)
        return self.construct_results(best, img, orig_imgs, **kwargs)


def detections(
    model: Any, images: Sequence[NDArray[Any]], tiling: Tiles | None, device: str, batch: int, **settings: Any
) -> list[tuple[Detections, Detections]]:
    """Return the detections in each decoded image (BGR, uint8): with the best class of each box, and with every class.

    `model` is a YOLO. Views pass through the square letterbox of exported models, `batch` at a time. The bundles'
    runner chooses the views and merges their detections; an image no larger than a tile, and any without `tiling`, is
    its only view. The network's last tensors are in `model.predictor.tensors`.
    """
    looked = [tiles.views(image.shape, tiling) for image in images]
    parts = [
        np.ascontiguousarray(image[top:bottom, left:right])
        for image, views in zip(images, looked, strict=True)
        for left, top, right, bottom in views
    ]
    seen: list[tuple[Detections, Detections]] = []
    for first in range(0, len(parts), batch):
        seen += _predict(model, parts[first : first + batch], device, **settings)
    remaining, merged = iter(seen), []
    for views in looked:
        best, every = zip(*islice(remaining, len(views)), strict=True)
        merged.append((tiles.merge(best, views, tiling), tiles.merge(every, views, tiling)))
    return merged


def _predict(
    model: Any, parts: list[NDArray[Any]], device: str, **settings: Any
) -> list[tuple[Detections, Detections]]:
    settings = {"rect": False, "device": device or None, "verbose": False, **settings}
    best = Model.predict(model, parts, predictor=BothPredictor, **settings)  # YOLOE's own predict ignores `predictor`
    every, model.predictor.every_label = model.predictor.every_label, []
    return [(_found(one.boxes), _found(other.boxes)) for one, other in zip(best, every, strict=True)]


def _found(boxes: Any) -> Detections:
    """Return Ultralytics' boxes in the runner's form."""
    boxes = boxes.cpu().numpy()
    corners = boxes.xyxy.astype(float)
    # A barely trained model predicts some boxes with negative sides; the runner drops them too.
    solid = (corners[:, 2:] > corners[:, :2]).all(axis=1)
    return Detections(corners, boxes.conf.astype(float), boxes.cls.astype(int)).only(solid)
