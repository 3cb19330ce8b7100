#!/usr/bin/env python3
"""Find objects with the model beside this file: in images, folders, videos or from a camera.

    python run.py photo.jpg folder/ film.mp4          one line of JSON per image, on the screen
    python run.py 0 --show                            camera 0, in a window
    python run.py folder/ --json found.jsonl --draw drawn/
    python run.py --selftest                          does this device do what was proven where the model was made?

Needs numpy, OpenCV (or Pillow, for images alone) and the runtime that model.json names; no torch, no Ultralytics.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import json
import os
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

try:
    import cv2
except ImportError:  # images can be read without it, videos and cameras cannot
    cv2 = None  # type: ignore[assignment,unused-ignore]

IMAGES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
VIDEOS = {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"}
COLOURS = ((60, 60, 235), (90, 200, 90), (255, 140, 0), (0, 200, 230), (200, 80, 200), (200, 200, 60))  # BGR
Forward = Callable[[Any], Any]


class Trouble(Exception):
    """One line for the person at the device."""


class Found:
    """What was found in one image: (n, 4) corners in its pixels, (n,) scores and (n,) class indices, best first."""

    def __init__(self, corners: Any, scores: Any, classes: Any) -> None:
        self.corners, self.scores, self.classes = corners, scores, classes

    def __len__(self) -> int:
        return len(self.scores)


# --- The model ------------------------------------------------------------------------------------


class Model:
    """The model that `spec`, the content of model.json, describes; its file lies in `folder`."""

    def __init__(self, folder: Path, spec: dict[str, Any], threads: int = 0, at_once: int = 1) -> None:
        path = folder / spec["model"]
        if not path.exists():
            raise Trouble(f"{path}: not there; unpack the whole bundle again")
        self.spec, self.size = spec, spec["input"]["size"]
        self.thresholds = np.array([spec["thresholds"][name] for name in spec["classes"]])
        self.forward = _loaded(path, spec, threads or len(_cores()), at_once)

    def detect(self, picture: Any) -> Found:
        """Objects in a picture (height, width, 3; uint8, BGR), from the threshold of their class up."""
        found = self.detect_all(picture, float(self.thresholds.min()))
        keep = found.scores >= self.thresholds[found.classes]
        return Found(found.corners[keep], found.scores[keep], found.classes[keep])

    def detect_all(self, picture: Any, lowest: float, every_label: bool = False) -> Found:
        """The same down to one score. `every_label`: a box may come with several classes, as average precision asks."""
        return self.read(self.forward(prepare(picture, self.spec["input"])), picture.shape, lowest, every_label)

    def read(self, raw: Any, shape: tuple[int, ...], lowest: float, every_label: bool = False) -> Found:
        return read_output(raw, self.spec, shape, lowest, every_label)


def read_output(
    raw: Any, spec: dict[str, Any], shape: tuple[int, ...], lowest: float, every_label: bool = False
) -> Found:
    """Objects in a model's output, in pixels of the original picture of this shape, from one score up."""
    output, size = spec["output"], spec["input"]["size"]
    if output["layout"] == "rows":  # (1, n, 6): the graph has chosen already; corners, score, class
        rows = raw[0][raw[0][:, 4] > lowest]
        corners, scores, classes = rows[:, :4], rows[:, 4], rows[:, 5].astype(int)
    else:  # "columns", (1, 4 + classes, n): centre, width, height, and a score per class
        corners, scores, classes = _candidates(raw[0], lowest, every_label)
        if output["normalised"]:
            corners = corners * size
        keep = _suppress(corners, scores, classes, output["iou"], output["max_det"])
        corners, scores, classes = corners[keep], scores[keep], classes[keep]
    return Found(_to_original(corners, shape, size, spec["input"]["fit"]), scores, classes)


def prepare(picture: Any, spec: dict[str, Any]) -> Any:
    """Picture (height, width, 3; uint8, BGR) -> (1, 3, size, size) float32, as the model was trained to see it."""
    size = spec["size"]
    new_width, new_height, left, top = _fitted(picture.shape, size, spec["fit"])
    if picture.shape[:2] != (new_height, new_width):
        picture = _resize(picture, new_width, new_height)
    square = np.full((size, size, 3), spec["pad"], np.uint8)
    square[top : top + new_height, left : left + new_width] = picture
    if spec["colour"] == "RGB":
        square = square[:, :, ::-1]
    planes = np.ascontiguousarray(square.transpose(2, 0, 1)[None])
    return np.multiply(planes, np.float32(spec["scale"]), dtype=np.float32)


def _fitted(shape: tuple[int, ...], size: int, fit: str) -> tuple[int, int, int, int]:
    """Width and height of a picture in the model's square, and where its left and top edges are."""
    if fit == "stretch":
        return size, size, 0, 0
    height, width = shape[:2]
    gain = min(size / height, size / width)
    new_width, new_height = max(round(width * gain), 1), max(round(height * gain), 1)
    return new_width, new_height, round((size - new_width) / 2 - 0.1), round((size - new_height) / 2 - 0.1)


def _resize(picture: Any, width: int, height: int) -> Any:
    if cv2 is not None:
        return cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR)
    # Pillow averages when it shrinks; OpenCV, with which the model was trained, takes the four nearest pixels.
    rows, y = _between(picture.shape[0], height)
    columns, x = _between(picture.shape[1], width)
    x, y = x[None, :, None], y[:, None, None]
    upper, lower = picture[rows[0]].astype(np.float32), picture[rows[1]].astype(np.float32)
    upper = upper[:, columns[0]] * (1 - x) + upper[:, columns[1]] * x
    lower = lower[:, columns[0]] * (1 - x) + lower[:, columns[1]] * x
    return np.floor(upper * (1 - y) + lower * y + 0.5).astype(np.uint8)


def _between(old: int, new: int) -> tuple[tuple[Any, Any], Any]:
    """For each of `new` positions on a side: the two of `old` around it, and how far it is towards the second."""
    at = np.clip((np.arange(new) + 0.5) * (old / new) - 0.5, 0, old - 1)
    first = np.floor(at).astype(int)
    return (first, np.minimum(first + 1, old - 1)), (at - first).astype(np.float32)


def _candidates(columns: Any, lowest: float, every_label: bool) -> tuple[Any, Any, Any]:
    boxes, scores = columns[:4], columns[4:]
    likely = np.flatnonzero(scores.max(axis=0) > lowest)
    boxes, scores = boxes[:, likely], scores[:, likely]
    if every_label:
        anchors, classes = np.nonzero(lowest < scores.T)
    else:
        anchors, classes = np.arange(len(likely)), scores.argmax(axis=0)
    centre, half = boxes[:2, anchors].T, boxes[2:, anchors].T / 2
    return np.concatenate([centre - half, centre + half], axis=1), scores[classes, anchors], classes


def _suppress(corners: Any, scores: Any, classes: Any, iou: float, most: int) -> Any:
    """Non-maximum suppression within each class: indices of the boxes that stay, best first."""
    left = np.argsort(-scores, kind="stable")
    areas = np.prod(corners[:, 2:] - corners[:, :2], axis=1)
    kept: list[int] = []
    while len(left) and len(kept) < most:
        best, left = left[0], left[1:]
        kept.append(int(best))
        low = np.maximum(corners[best, :2], corners[left, :2])
        high = np.minimum(corners[best, 2:], corners[left, 2:])
        overlap = np.prod(np.clip(high - low, 0, None), axis=1)
        same = classes[left] == classes[best]
        left = left[~same | (overlap <= iou * (areas[left] + areas[best] - overlap))]
    return np.array(kept, dtype=int)


def _to_original(corners: Any, shape: tuple[int, ...], size: int, fit: str) -> Any:
    """Each side by its own factor: whole pixels make one a little more than the other."""
    height, width = shape[:2]
    new_width, new_height, left, top = _fitted(shape, size, fit)
    gain = np.array([new_width / width, new_height / height])
    corners = (corners.astype(np.float64) - [left, top, left, top]) / [*gain, *gain]
    return np.clip(corners, 0, [width, height, width, height])


# --- Runtimes: each gives a function from the input tensor to the output tensor -------------------
# It has `threads` for an image, and may be called `at_once` times at the same time.


def _loaded(path: Path, spec: dict[str, Any], threads: int, at_once: int) -> Forward:
    load, package = RUNTIMES[spec["format"]]
    try:
        return load(path, spec, threads, at_once)
    except ImportError as error:
        raise Trouble(f"{path.name}: needs the Python package {package} ({error}); pip install {package}") from None
    except Trouble:
        raise
    except Exception as error:  # every runtime has its own kinds, and a damaged file finds them all
        raise Trouble(f"{path.name}: {package} cannot load it: {' '.join(str(error).split())[:200]}") from None


def _in_turns(workers: list[Forward]) -> Forward:
    """One function of several, each of which serves one caller at a time."""
    free: SimpleQueue[Forward] = SimpleQueue()
    for worker in workers:
        free.put(worker)

    def forward(tensor: Any) -> Any:
        worker = free.get()
        try:
            return worker(tensor)
        finally:
            free.put(worker)

    return forward


def _onnx(path: Path, spec: dict[str, Any], threads: int, at_once: int) -> Forward:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda tensor: session.run(None, {name: tensor})[0]


def _openvino(path: Path, spec: dict[str, Any], threads: int, at_once: int) -> Forward:
    import openvino

    # f32: where the processor can, OpenVINO computes in bfloat16 by itself, which moves boxes by pixels.
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    # Streams of one model: two models would sit on one core, and wait for each other for ever now and then.
    settings |= {"NUM_STREAMS": at_once, "INFERENCE_NUM_THREADS": threads * at_once}
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)

    def worker(request: Any) -> Forward:
        return lambda tensor: next(iter(request.infer(tensor, share_inputs=True).values()))

    return _in_turns([worker(compiled.create_infer_request()) for _ in range(at_once)])


def _ncnn(path: Path, spec: dict[str, Any], threads: int, at_once: int) -> Forward:
    import ncnn

    net = ncnn.Net()
    net.opt.use_vulkan_compute = False
    net.opt.num_threads = threads
    if spec["precision"] == "fp32":  # by itself it rounds to 16 bits where the processor has them
        net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
        net.opt.use_bf16_storage = False
    if net.load_param(str(path)) or net.load_model(str(path.with_suffix(".bin"))):
        raise Trouble(f"{path.name}: ncnn cannot load it; unpack the whole bundle again")
    [entry], [end] = net.input_names(), net.output_names()

    def forward(tensor: Any) -> Any:
        with net.create_extractor() as extractor:
            extractor.input(entry, ncnn.Mat(tensor[0]))
            return np.array(extractor.extract(end)[1])[None]

    return forward


def _torchscript(path: Path, spec: dict[str, Any], threads: int, at_once: int) -> Forward:
    import torch

    torch.set_num_threads(threads)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # that TorchScript will go one day
        module = torch.jit.load(str(path), map_location="cpu").eval()

    def forward(tensor: Any) -> Any:
        with torch.inference_mode():
            result = module(torch.from_numpy(tensor))
        return (result[0] if isinstance(result, (tuple, list)) else result).numpy()

    return forward


def _litert(path: Path, spec: dict[str, Any], threads: int, at_once: int) -> Forward:
    from ai_edge_litert.interpreter import Interpreter

    def worker() -> Forward:
        interpreter = Interpreter(str(path), num_threads=threads)
        interpreter.allocate_tensors()
        [entry], end = interpreter.get_input_details(), interpreter.get_output_details()[0]

        def forward(tensor: Any) -> Any:
            interpreter.set_tensor(entry["index"], tensor)
            interpreter.invoke()
            return interpreter.get_tensor(end["index"])

        return forward

    return _in_turns([worker() for _ in range(at_once)])


def _tensorrt(path: Path, spec: dict[str, Any], threads: int, at_once: int) -> Forward:
    """Through the CUDA runtime library itself, so that TensorRT is all that has to be installed."""
    import ctypes
    import ctypes.util

    import tensorrt

    library = ctypes.util.find_library("cudart") or "libcudart.so"
    try:
        cuda = ctypes.CDLL(library)
    except OSError:
        raise Trouble(f"{library}: not found; an engine runs on an NVIDIA GPU with CUDA installed") from None
    runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR))
    engine = runtime.deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        raise Trouble(f"{path.name}: built for another GPU or TensorRT than {tensorrt.__version__}; run build.py here")
    context = engine.create_execution_context()
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    entry = next(name for name in names if engine.get_tensor_mode(name) == tensorrt.TensorIOMode.INPUT)
    end = next(name for name in names if name != entry)
    size = spec["input"]["size"]
    context.set_input_shape(entry, (1, 3, size, size))
    result = np.empty(tuple(context.get_tensor_shape(end)), np.float32)
    places = {}
    for name, number in ((entry, 3 * size * size * 4), (end, result.nbytes)):
        place = ctypes.c_void_p()
        if cuda.cudaMalloc(ctypes.byref(place), ctypes.c_size_t(number)):
            raise Trouble("CUDA: no memory on the GPU, or no GPU")
        context.set_tensor_address(name, place.value)
        places[name] = place

    def copy(target: Any, source: Any, number: int, kind: int) -> None:  # kind 1: to the GPU, 2: back
        if cuda.cudaMemcpy(target, source, ctypes.c_size_t(number), kind):
            raise Trouble("CUDA: copying to or from the GPU failed")

    def forward(tensor: Any) -> Any:
        copy(places[entry], tensor.ctypes.data_as(ctypes.c_void_p), tensor.nbytes, 1)
        if not context.execute_async_v3(0):
            raise Trouble("TensorRT: the engine did not run")
        copy(result.ctypes.data_as(ctypes.c_void_p), places[end], result.nbytes, 2)
        return result

    return forward


RUNTIMES: dict[str, tuple[Callable[[Path, dict[str, Any], int, int], Forward], str]] = {
    "onnx": (_onnx, "onnxruntime"),
    "openvino": (_openvino, "openvino"),
    "ncnn": (_ncnn, "ncnn"),
    "torchscript": (_torchscript, "torch"),
    "litert": (_litert, "ai-edge-litert"),
    "engine": (_tensorrt, "tensorrt"),
}
# What `bench` imports apart from loading: importing a runtime can take longer than loading a model.
MODULES = {
    "onnx": "onnxruntime",
    "openvino": "openvino",
    "ncnn": "ncnn",
    "torchscript": "torch",
    "litert": "ai_edge_litert.interpreter",
    "engine": "tensorrt",
}


# --- Pictures in, findings out --------------------------------------------------------------------


def read_image(path: Path) -> Any:
    """(height, width, 3), uint8, BGR, upright."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Trouble(f"{path}: {error.strerror}") from None
    if cv2 is not None:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
        if picture is None:
            raise Trouble(f"{path}: not an image that OpenCV can read")
        return picture
    import io

    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))[:, :, ::-1]
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
        raise Trouble(f"{path}: not an image that Pillow can read") from None


class Crew:
    """A model that works on as many images at once as there are threads: more a second than all threads on one image.

    Frames of a video or a camera come one by one, and soon is better than many: they have all threads.
    """

    def __init__(
        self, folder: Path, spec: dict[str, Any], sources: list[str], threads: int = 0, one_by_one: bool = False
    ) -> None:
        threads = threads or len(_cores())
        self.sources = _expanded(sources)
        images = sum(not _moves(source) for source in self.sources)
        # Frames are in a hurry, a GPU is one for all, and a single image has all threads to itself.
        alone = one_by_one or images < len(self.sources) or spec["format"] == "engine"
        self.size = 1 if alone else max(1, min(threads, images))
        self.classes = spec["classes"]
        self.model = Model(folder, spec, threads // self.size, self.size)

    def each(self) -> Iterator[tuple[str, int | None, Any, Found]]:
        """Name, number of the frame (None for an image), picture and what is in it, in the order of the sources."""
        with ThreadPoolExecutor(self.size) as pool:
            waiting: deque[Future[tuple[str, int | None, Any, Found]]] = deque()
            for source in self.sources:
                if _moves(source):
                    while waiting:
                        yield waiting.popleft().result()
                    for name, number, frame in _frames(source):
                        yield name, number, frame, self.model.detect(frame)
                    continue
                assert isinstance(source, Path)
                waiting.append(pool.submit(self._image, source))
                if len(waiting) > 2 * self.size:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _image(self, path: Path) -> tuple[str, None, Any, Found]:
        picture = read_image(path)
        return str(path), None, picture, self.model.detect(picture)


def _moves(source: Path | int) -> bool:
    return isinstance(source, int) or source.suffix.lower() in VIDEOS


def _expanded(sources: list[str]) -> list[Path | int]:
    found: list[Path | int] = []
    for source in sources:
        path = Path(source)
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGES | VIDEOS)
            if not inside:
                raise Trouble(f"{path}: no images or videos in it")
            found += inside
        elif source.isdigit() and not path.exists():
            found.append(int(source))
        elif not path.is_file():
            raise Trouble(f"{path}: no such file or folder")
        else:
            found.append(path)
    return found


def _frames(source: Path | int) -> Iterator[tuple[str, int, Any]]:
    what = f"camera {source}" if isinstance(source, int) else str(source)
    if cv2 is None:
        raise Trouble(f"{what}: videos and cameras need OpenCV; pip install opencv-python-headless")
    capture = cv2.VideoCapture(source if isinstance(source, int) else str(source))
    number = 0
    try:
        while True:
            there, frame = capture.read()
            if not there:
                break
            yield what, number, frame
            number += 1
    finally:
        capture.release()
    if not number:
        raise Trouble(f"{what}: cannot be opened, or has no picture")


def as_json(name: str, frame: int | None, picture: Any, found: Found, classes: list[str]) -> dict[str, Any]:
    """Boxes are x, y of the upper left corner, width, height, in pixels of the original image."""
    boxes = np.concatenate([found.corners[:, :2], found.corners[:, 2:] - found.corners[:, :2]], axis=1)
    return {
        "file": name,
        **({} if frame is None else {"frame": frame}),
        "height": picture.shape[0],
        "width": picture.shape[1],
        "objects": [
            {"class": classes[index], "score": round(float(score), 5), "bbox": [round(float(side), 2) for side in box]}
            for box, score, index in zip(boxes, found.scores, found.classes)
        ],
    }


def draw(picture: Any, found: Found, classes: list[str]) -> Any:
    """A copy of the picture with boxes, names and scores."""
    texts = [f"{classes[index]} {score:.2f}" for index, score in zip(found.classes, found.scores)]
    corners = [tuple(round(float(side)) for side in box) for box in found.corners]
    colours = [COLOURS[index % len(COLOURS)] for index in found.classes]
    if cv2 is not None:
        drawn = picture.copy()
        for (x1, y1, x2, y2), text, colour in zip(corners, texts, colours):
            cv2.rectangle(drawn, (x1, y1), (x2, y2), colour, 2)
            cv2.putText(drawn, text, (x1, max(y1 - 4, 12)), cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, 1, cv2.LINE_AA)
        return drawn
    from PIL import Image, ImageDraw

    image = Image.fromarray(np.ascontiguousarray(picture[:, :, ::-1]))
    pencil = ImageDraw.Draw(image)
    for (x1, y1, x2, y2), text, colour in zip(corners, texts, colours):
        pencil.rectangle((x1, y1, x2, y2), outline=colour[::-1], width=2)
        pencil.text((x1, max(y1 - 12, 0)), text, fill=colour[::-1])
    return np.asarray(image)[:, :, ::-1]


def _write_jpeg(path: Path, picture: Any) -> None:
    if cv2 is not None:
        path.write_bytes(cv2.imencode(".jpg", picture)[1].tobytes())
    else:
        from PIL import Image

        Image.fromarray(np.ascontiguousarray(picture[:, :, ::-1])).save(path, quality=95)


def run(crew: Crew, options: argparse.Namespace) -> None:
    classes = crew.classes
    if options.show and cv2 is None:
        raise Trouble("--show: a window needs OpenCV; pip install opencv-python")
    if options.draw:
        options.draw.mkdir(parents=True, exist_ok=True)
    partial = options.json.with_name(f".{options.json.name}.partial") if options.json else None
    lines = partial.open("w", encoding="utf-8") if partial else sys.stdout
    try:
        for count, (name, frame, picture, found) in enumerate(crew.each()):
            print(json.dumps(as_json(name, frame, picture, found, classes), ensure_ascii=False), file=lines)
            if options.draw or options.show:
                drawn = draw(picture, found, classes)
            if options.draw:
                _write_jpeg(options.draw / f"{count:06d}_{Path(name).stem}.jpg", drawn)
            if options.show:
                try:
                    cv2.imshow("found", drawn)
                    if cv2.waitKey(1 if frame is not None else 0) in (27, ord("q")):
                        break
                except cv2.error:
                    raise Trouble("--show: this OpenCV has no windows; pip install opencv-python") from None
        if partial:
            lines.close()
            os.replace(partial, options.json)
    finally:
        if partial:
            lines.close()
            partial.unlink(missing_ok=True)


# --- Is this what was proven? ---------------------------------------------------------------------


def check_files(folder: Path) -> None:
    """Every file of the bundle against SHA256SUMS (the form that `sha256sum -c` reads)."""
    listing = folder / "SHA256SUMS"
    if not listing.is_file():
        raise Trouble(f"{listing}: not there; unpack the whole bundle again")
    try:
        rows = [line.split("  ", 1) for line in listing.read_text(encoding="utf-8").splitlines()]
        expected = {name: digest for digest, name in rows}
    except (UnicodeDecodeError, ValueError):
        raise Trouble(f"{listing}: damaged; unpack the bundle again") from None
    if not {"model.json", "run.py"} <= expected.keys():
        raise Trouble(f"{listing}: damaged; unpack the bundle again")
    for name, digest in expected.items():
        path = folder / name
        if not path.is_file():
            raise Trouble(f"{path}: not there; unpack the whole bundle again")
        if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise Trouble(f"{path}: changed since it was proven (its sha256 differs); unpack the bundle again")


def selftest(folder: Path, spec: dict[str, Any], threads: int) -> str:
    """Run the golden images, and compare with what was found where the model was made."""
    check_files(folder)
    model = Model(folder, spec, threads)
    expected = json.loads((folder / "golden" / "expected.json").read_text(encoding="utf-8"))
    limits, boxes, most_px, most_score = spec["selftest"], 0, 0.0, 0.0
    for golden in expected:
        found = model.detect_all(read_image(folder / "golden" / golden["file"]), golden["lowest"] * 0.8)
        there = Found(
            np.array(golden["corners"]).reshape(-1, 4), np.array(golden["scores"]), np.array(golden["classes"])
        )
        px, score, lost = apart(there, found)
        boxes, most_px, most_score = boxes + len(there), max(most_px, px), max(most_score, score)
        say = ""
        if lost:
            say = f"{lost} of {len(there)} objects not found"
        elif px > limits["max_box_px"]:
            say = f"boxes {px:.3g} px apart, {limits['max_box_px']:g} allowed"
        elif score > limits["max_score"]:
            say = f"scores {score:.3g} apart, {limits['max_score']:g} allowed"
        elif sum(found.scores >= golden["lowest"] + limits["max_score"]) > len(there):
            say = f"{sum(found.scores >= golden['lowest'] + limits['max_score'])} objects instead of {len(there)}"
        if say:
            raise Trouble(f"selftest FAILED: golden/{golden['file']}: {say}; this device computes something else")
    return f"selftest passed: {len(expected)} images, {boxes} objects, to {most_px:.2g} px and {most_score:.1g}"


def apart(ours: Found, theirs: Found) -> tuple[float, float, int]:
    """Largest distance of corners and of scores between paired boxes, and how many of ours have no partner."""
    free, px, score, lost = set(range(len(theirs))), 0.0, 0.0, 0
    for corners, value, kind in zip(ours.corners, ours.scores, ours.classes):
        near = [
            (float(np.abs(theirs.corners[j] - corners).max() + 10 * abs(theirs.scores[j] - value)), j)
            for j in free
            if theirs.classes[j] == kind and overlap(corners, theirs.corners[j]) >= 0.5
        ]
        if not near:
            lost += 1
            continue
        _, j = min(near)
        free.remove(j)
        px = max(px, float(np.abs(theirs.corners[j] - corners).max()))
        score = max(score, abs(float(theirs.scores[j] - value)))
    return px, score, lost


def overlap(a: Any, b: Any) -> float:
    """Intersection over union of two boxes given by their corners."""
    shared = float(np.prod(np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None)))
    together = float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2])) - shared
    return shared / together if together > 0 else 0.0


# --- How fast -------------------------------------------------------------------------------------

BENCH_SECONDS = 2.0  # at least, of whole images: starting and stopping threads would tell otherwise


def _cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def bench(folder: Path, spec: dict[str, Any], sources: list[str], threads: int, runs: int) -> dict[str, Any]:
    """Measure milliseconds to import the runtime, to load the model and to infer, and whole images per second.

    A whole image is decoded, fitted, inferred and post-processed: one after the other with all threads on each, and as
    many at once as there are threads.
    """
    if threads and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, _cores()[:threads])
    if cv2 is not None and threads:
        cv2.setNumThreads(threads)
    start = time.perf_counter()
    with contextlib.suppress(ImportError):  # loading says what is missing
        importlib.import_module(MODULES[spec["format"]])
    import_ms = (time.perf_counter() - start) * 1e3
    start = time.perf_counter()
    model = Model(folder, spec, threads)
    load_ms = (time.perf_counter() - start) * 1e3
    seen = list(Crew(folder, spec, sources, threads, one_by_one=True).each())  # it is warm then
    tensor = prepare(seen[0][2], spec["input"])
    boxes = sum(len(found) for _, _, _, found in seen)
    for _ in range(max(3, runs // 5)):
        model.forward(tensor)
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        model.forward(tensor)
        times.append((time.perf_counter() - start) * 1e3)
    del model, seen  # or its threads would wait busily beside the others
    return {
        "threads": threads or len(_cores()),
        "import_ms": round(import_ms, 1),
        "load_ms": round(load_ms, 1),
        "latency_ms": {
            "p50": round(float(np.percentile(times, 50)), 2),
            "p95": round(float(np.percentile(times, 95)), 2),
        },
        "runs": runs,
        "boxes": boxes,
        "images_per_s": _images_per_s(Crew(folder, spec, sources, threads, one_by_one=True), runs),
        "images_per_s_at_once": _images_per_s(Crew(folder, spec, sources, threads), runs),
    }


def _images_per_s(crew: Crew, least: int) -> float:
    for _ in crew.each():  # it is warm then
        pass
    start, images, seconds = time.perf_counter(), 0, 0.0
    while images < least or seconds < BENCH_SECONDS:
        images += sum(1 for _ in crew.each())
        seconds = time.perf_counter() - start
    return round(images / seconds, 2)


# --- The command line -----------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    about = (__doc__ or "").split("\n\n")
    parser = argparse.ArgumentParser(
        prog="run.py", description=about[0], epilog=about[1], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sources", nargs="*", help="images, folders, videos, or the number of a camera")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the lines there instead of on the screen")
    parser.add_argument("--draw", type=Path, metavar="FOLDER", help="write the pictures with boxes drawn")
    parser.add_argument("--show", action="store_true", help="in a window; q ends it")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="all cores if not given")
    parser.add_argument("--selftest", action="store_true", help="compare this device with where the model was made")
    parser.add_argument("--bench", type=int, default=0, metavar="RUNS", help="measure instead of telling what is found")
    options = parser.parse_args(arguments)
    folder = Path(__file__).resolve().parent
    try:
        spec_file = folder / "model.json"
        try:
            spec = json.loads(spec_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise Trouble(f"{spec_file}: not there or damaged; unpack the whole bundle again") from None
        if options.selftest:
            print(selftest(folder, spec, options.threads))
        elif not options.sources:
            parser.error("name an image, a folder, a video or a camera, or --selftest")
        elif options.bench:
            print(json.dumps(bench(folder, spec, options.sources, options.threads, options.bench)))
        else:
            run(Crew(folder, spec, options.sources, options.threads), options)
    except Trouble as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error.filename or 'run.py'}: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
