"""Split crowded images into pieces, because COCO's evaluators keep a matrix of all boxes of an image and class.

For a slide with 9,000 objects and 64,000 predictions, it would take 13 GB. No box is cut: a piece holds boxes that can
match.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from pipeline.metrics.iou import iou_blocks
from pipeline.metrics.matching import IOU_THRESHOLDS, MAX_DETECTIONS, boxes
from pipeline.records.coco import Annotation, GroundTruth, Image, Prediction

Key = tuple[int, int]  # image and class
NEAR = float(IOU_THRESHOLDS[0]) - 1e-6  # the margin is for rounding: COCO's evaluators compute IoU in another order


def split(truth: GroundTruth, predictions: list[Prediction]) -> tuple[GroundTruth, list[Prediction]]:
    """Return the same boxes on more images, so that the matches of all boxes stay the same.

    Only objects of an image and class with more than MAX_DETECTIONS of them are moved, each with the predictions that
    overlap it by COCO's lowest threshold or more. Where predictions per image do not count, average precision and
    recall stay the same, because COCO matches within an image and class and then sorts all predictions by score.
    """
    labels, found = _grouped(truth["annotations"]), _grouped(predictions)
    images = {image["id"]: image for image in truth["images"]}
    added: list[Image] = []
    piece_of_label: dict[int, int] = {}
    piece_of_prediction: dict[int, int] = {}
    unused = max(images) + 1
    for key, objects in labels.items():
        if len(objects) <= MAX_DETECTIONS:
            continue
        seen = found.get(key, [])
        of_objects, of_seen, pieces = _components(
            [truth["annotations"][index] for index in objects], [predictions[index] for index in seen]
        )
        added += [{**images[key[0]], "id": unused + piece} for piece in range(pieces)]
        piece_of_label |= {index: unused + piece for index, piece in zip(objects, of_objects, strict=True)}
        piece_of_prediction |= {
            index: unused + piece for index, piece in zip(seen, of_seen, strict=True) if piece is not None
        }
        unused += pieces
    annotations: list[Annotation] = [
        {**record, "image_id": piece_of_label.get(index, record["image_id"])}
        for index, record in enumerate(truth["annotations"])
    ]
    moved: list[Prediction] = [
        {**record, "image_id": piece_of_prediction.get(index, record["image_id"])}
        for index, record in enumerate(predictions)
    ]
    return {**truth, "images": [*truth["images"], *added], "annotations": annotations}, moved


def _grouped(records: Iterable[Annotation | Prediction]) -> dict[Key, list[int]]:
    """Return the positions of the records of each image and class."""
    groups: dict[Key, list[int]] = defaultdict(list)
    for index, record in enumerate(records):
        groups[record["image_id"], record["category_id"]].append(index)
    return dict(groups)


def _components(objects: list[Annotation], seen: list[Prediction]) -> tuple[list[int], list[int | None], int]:
    """Return the piece of each object and prediction, and the number of pieces.

    A prediction that cannot match any object has no piece: it may stay where it is.
    """
    from scipy.sparse import coo_array  # slow to import, and seldom needed
    from scipy.sparse.csgraph import connected_components

    pairs = [
        np.argwhere(iou >= NEAR) + np.array([rows.start, 0]) for rows, iou in iou_blocks(boxes(seen), boxes(objects))
    ]
    prediction, label = np.concatenate([np.zeros((0, 2), dtype=np.int64), *pairs]).T
    size = len(objects) + len(seen)
    graph = coo_array((np.ones(len(label), dtype=bool), (label, len(objects) + prediction)), shape=(size, size))
    _, component = connected_components(graph, directed=False)
    of_objects, of_seen = component[: len(objects)].tolist(), component[len(objects) :].tolist()
    piece = {name: number for number, name in enumerate(dict.fromkeys(of_objects))}
    return [piece[name] for name in of_objects], [piece.get(name) for name in of_seen], len(piece)
