"""Compute the features of each box in the layers of a model. Import it late: it imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.ops import roi_align

from pipeline import logs, pixels
from pipeline.probing import wiring
from pipeline.probing.sample import Scene

BINS = 3  # each box is sampled at BINS x BINS cells, which are averaged
GREY = 114  # padding, as in Ultralytics' training


def of_boxes(
    model: Any, scenes: Sequence[Scene], layers: Sequence[int], imgsz: int, description: str
) -> dict[int, NDArray[np.float64]]:
    """Return for each layer one row per box of all scenes, in order: the layer's output averaged over the box.

    `model` is a DetectionModel in eval mode. Images are fitted into `imgsz`, but not padded to a square.
    """
    device = next(model.parameters()).device
    rows: dict[int, list[NDArray[np.float64]]] = {layer: [] for layer in layers}
    with torch.inference_mode(), logs.progress(scenes, description) as bar:
        for scene in bar:
            image, (width, height) = _fitted(scene, imgsz)
            corners = torch.from_numpy(scene.corners * [width, height, width, height]).float().to(device)
            outputs = {-1: image.to(device)}
            wiring.run(model.model[: max(layers) + 1], outputs)
            for layer in layers:
                scale = outputs[layer].shape[-1] / image.shape[-1]
                cells = roi_align(outputs[layer], [corners], BINS, scale, sampling_ratio=2, aligned=True)
                rows[layer].append(cells.mean(dim=(2, 3)).double().cpu().numpy())
    return {layer: np.concatenate(parts) for layer, parts in rows.items()}


def backbone(model: Any) -> list[int]:
    """Return the layers of the backbone that the neck takes: 4, 6 and 10 of YOLO26."""
    return wiring.taken(model, len(model.yaml["backbone"]))


def stages(model: Any) -> list[int]:
    """Return the last layer at each successive resolution, without the head: 2, 4, 6, 10, 13, 16, 19, 22 of YOLO26.

    Layers with several outputs, such as YOLOv9's CBLinear, are left out.
    """
    with torch.inference_mode():
        side = 4 * int(max(model.stride))
        image = torch.zeros(1, 3, side, side, device=next(model.parameters()).device)
        outputs = {-1: image}
        wiring.run(model.model[:-1], outputs)
    resolution = {number: out.shape[-1] for number, out in outputs.items() if isinstance(out, torch.Tensor)}
    return [
        layer.i
        for layer, following in zip(model.model[:-1], model.model[1:], strict=True)
        if layer.i in resolution
        and resolution[layer.i] in (resolution.get(number) for number in wiring.sources(layer))
        and (following is model.model[-1] or resolution.get(following.i) != resolution[layer.i])
    ]


def _fitted(scene: Scene, imgsz: int) -> tuple[torch.Tensor, tuple[int, int]]:
    """Return an image as (1, 3, h, w), 0 to 1, padded to multiples of 32, and its width and height without padding."""
    image, _ = pixels.fit(pixels.read(scene.image), imgsz, enlarge=float("inf"))
    height, width = image.shape[:2]
    padded = cv2.copyMakeBorder(image, 0, -height % 32, 0, -width % 32, cv2.BORDER_CONSTANT, value=(GREY,) * 3)
    tensor = torch.from_numpy(np.ascontiguousarray(padded[..., ::-1].transpose(2, 0, 1)))[None]
    return tensor.float() / 255, (width, height)
