"""Ultralytics' predictor, with every label of a box. Imported late: it brings torch and Ultralytics with it."""

from __future__ import annotations

from typing import Any

from ultralytics.models.yolo.detect import DetectionPredictor
from ultralytics.utils.nms import non_max_suppression


class BothPredictor(DetectionPredictor):  # type: ignore[misc]  # Ultralytics has no types
    """Keep, beside the results with the best class of each box, those with every class, and the last tensors.

    The first are not a part of the second: a class that is only the second best of its box suppresses its neighbours
    in the second, and not in the first. Both come from one pass through the network.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.every_label: list[Any] = []
        self.tensors: tuple[Any, Any] | None = None  # input (n, 3, h, w) and output of the network

    def postprocess(self, preds: Any, img: Any, orig_imgs: Any, **kwargs: Any) -> Any:
        self.tensors = img, preds[0] if isinstance(preds, (list, tuple)) else preds
        found = non_max_suppression(
            preds,
            self.args.conf,
            self.args.iou,
            multi_label=True,
            max_det=self.args.max_det,
            end2end=getattr(self.model, "end2end", False),
        )
        self.every_label += self.construct_results(found, img, orig_imgs, **kwargs)
        return super().postprocess(preds, img, orig_imgs, **kwargs)


def predict(model: Any, source: str | list[str], device: str, **settings: Any) -> list[tuple[Any, Any]]:
    """Return Ultralytics' results for each image: with the best class of each box, and with every class.

    `model` is a YOLO. `source` is the path of an image, which Ultralytics reads with OpenCV as a device does, or a
    list of paths, which it reads with Pillow and makes one batch of. All go through the square letterbox that
    exported models get. The tensors are in `model.predictor.tensors`.
    """
    best = model.predict(source, predictor=BothPredictor, rect=False, device=device or None, verbose=False, **settings)
    every, model.predictor.every_label = model.predictor.every_label, []
    return list(zip(best, every, strict=True))
