"""A bundle around a handmade model that finds bright cells, so that the expected detections are known in advance.

The square is divided into 16-pixel cells. A cell's mean red, green and blue are its scores for three classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from pipeline.config.export import Export
from pipeline.device import runner
from pipeline.export import bundle, targets

CELL = 16
NAMES = ("disc", "square", "ring")
COLOURS = ((0, 0, 255), (0, 255, 0), (255, 0, 0))  # BGR of a cell that holds an object of this class


def model(path: Path, size: int, spread: float = 1.0) -> None:
    """Write the ONNX model for a square of `size` pixels; boxes are `spread` times as wide and high as cells."""
    side = size // CELL
    rows, columns = np.divmod(np.arange(side * side), side)
    centres = np.stack([(columns + 0.5) * CELL, (rows + 0.5) * CELL])
    boxes = np.concatenate([centres, np.full_like(centres, spread * CELL)])[None].astype(np.float32)
    nodes = [
        helper.make_node("AveragePool", ["images"], ["means"], kernel_shape=[CELL, CELL], strides=[CELL, CELL]),
        helper.make_node("Reshape", ["means", "shape"], ["scores"]),
        helper.make_node("Concat", ["boxes", "scores"], ["output0"], axis=1),
    ]
    constants = [
        numpy_helper.from_array(boxes, "boxes"),
        numpy_helper.from_array(np.array([1, 3, side * side]), "shape"),
    ]
    entry = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, size, size])
    end = helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 7, side * side])
    graph = helper.make_graph(nodes, "cells", [entry], [end], constants)
    made = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])
    onnx.checker.check_model(made, full_check=True)
    path.write_bytes(made.SerializeToString())


def image(size: int, cells: dict[tuple[int, int], int]) -> NDArray[np.uint8]:
    """A black image with an object of the given class at each (row, column)."""
    made = np.zeros((size, size, 3), np.uint8)
    for (row, column), kind in cells.items():
        made[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = COLOURS[kind]
    return made


def bundled(
    folder: Path, size: int = 64, names: tuple[str, ...] = NAMES, spread: float = 1.0, **changes: Mapping[str, Any]
) -> Path:
    """An unpacked bundle, built by the product's own code. `changes` are merged into the sections of model.json."""
    folder.mkdir(parents=True, exist_ok=True)
    artefact = folder / "cells.onnx"
    model(artefact, size, spread)
    target = Export().targets[0]
    spec: Any = targets.spec(target, artefact, folder, names, size, dict.fromkeys(names, 0.7))
    for section, values in changes.items():
        spec[section] = {**(spec[section] or {}), **values}
    golden = folder / "received.png"
    golden.write_bytes(cv2.imencode(".png", image(size, {(0, 0): 0, (1, 2): 1, (3, 1): 2}))[1].tobytes())
    bundle.golden(runner.Model(folder, spec, 1), [golden], folder / "golden", 0.5)
    bundle.write(folder / "cells-onnx-fp32.zip", artefact, spec, {"run": "cells"}, folder / "golden")
    return bundle.unpack(folder / "cells-onnx-fp32.zip", folder / "device")
