"""Predict with every class of a box. Import it late: it imports torch and Ultralytics."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
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
        self.tensors = img, preds[0] if isinstance(preds, (list, tuple)) else preds
        detections = non_max_suppression(
            preds,
            self.args.conf,
            self.args.iou,
            multi_label=True,
            max_det=self.args.max_det,
            end2end=getattr(self.model, "end2end", False),
        )
        self.every_label += self.construct_results(detections, img, orig_imgs, **kwargs)
        return super().postprocess(preds, img, orig_imgs, **kwargs)


def predict(model: Any, source: str | list[Any], device: str, **settings: Any) -> list[tuple[Any, Any]]:
    """Return Ultralytics' results for each image: with the best class of each box, and with every class.

    `model` is a YOLO. `source` is the path of an image, which Ultralytics reads with OpenCV as a device does; a list of
    paths, which it reads with Pillow as one batch; or a list of decoded images (BGR, uint8). All images pass through
    the square letterbox of exported models. The network's tensors are in `model.predictor.tensors`.
    """
    best = model.predict(source, predictor=BothPredictor, rect=False, device=device or None, verbose=False, **settings)
    every, model.predictor.every_label = model.predictor.every_label, []
    return list(zip(best, every, strict=True))


def through_views(
    model: Any, image: NDArray[Any], tiling: Tiles | None, device: str, batch: int, **settings: Any
) -> tuple[Detections, Detections]:
    """Return the detections in a decoded image (BGR): with the best class of each box, and with every class.

    The bundles' runner chooses the views and merges their detections. `batch` is the number of views at a time.
    """
    views = tiles.views(image.shape, tiling)
    parts = [np.ascontiguousarray(image[top:bottom, left:right]) for left, top, right, bottom in views]
    results: list[tuple[Any, Any]] = []
    for first in range(0, len(parts), batch):
        results += predict(model, parts[first : first + batch], device, **settings)
    best, every = ([found(result.boxes) for result in side] for side in zip(*results, strict=True))
    return tiles.merge(best, views, tiling), tiles.merge(every, views, tiling)


def found(boxes: Any) -> Detections:
    """Return Ultralytics' boxes in the runner's form."""
    boxes = boxes.cpu().numpy()
    corners = boxes.xyxy.astype(float)
    # A barely trained model predicts some boxes with negative sides; the runner drops them too.
    solid = (corners[:, 2:] > corners[:, :2]).all(axis=1)
    return Detections(corners, boxes.conf.astype(float), boxes.cls.astype(int)).only(solid)
