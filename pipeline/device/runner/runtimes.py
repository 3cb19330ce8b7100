# SPDX-License-Identifier: AGPL-3.0-only
"""Load models into runtimes: each loader returns a function from the input tensor to the output tensor.

The function uses `threads` threads per call and may be called `at_once` times in parallel.
"""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Callable

import numpy as np

from .base import RunnerError, Spec, in_a_line

Forward = Callable[[Any], Any]
WHERE = "on a Jetson, python3 -m venv --system-site-packages .venv shows JetPack's; elsewhere, pip install tensorrt"


def load(path: Path, spec: Spec, threads: int, at_once: int) -> Forward:
    loader, package = RUNTIMES[spec["format"]]
    try:
        return loader(path, spec, threads, at_once)
    except ImportError as error:
        how = WHERE if package == "tensorrt" else f"pip install {package}"
        raise RunnerError(f"{path.name}: needs the Python package {package} ({error}); {how}") from None
    except RunnerError:
        raise
    except Exception as error:  # every runtime has its own error classes
        raise RunnerError(f"{path.name}: {package} cannot load it: {in_a_line(error)}") from None


def _in_turns(workers: list[Forward]) -> Forward:
    """Combine functions that each serve one caller at a time into one function."""
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


def _onnx(path: Path, spec: Spec, threads: int, at_once: int) -> Forward:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda tensor: session.run(None, {name: tensor})[0]


def _openvino(path: Path, spec: Spec, threads: int, at_once: int) -> Forward:
    import openvino

    # By default OpenVINO computes in bfloat16 if the processor can, which moves boxes by pixels.
    settings: dict[str, str | int] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    # Streams of one model, because two models would share one core, and sometimes wait for each other forever.
    settings.update({"NUM_STREAMS": at_once, "INFERENCE_NUM_THREADS": threads * at_once})
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)

    def worker(request: Any) -> Forward:
        return lambda tensor: next(iter(request.infer(tensor, share_inputs=True).values()))

    return _in_turns([worker(compiled.create_infer_request()) for _ in range(at_once)])


def _ncnn(path: Path, spec: Spec, threads: int, at_once: int) -> Forward:
    import ncnn

    net = ncnn.Net()
    net.opt.use_vulkan_compute = False
    net.opt.num_threads = threads
    if spec["precision"] == "fp32":  # by default ncnn rounds to 16 bits if the processor can
        net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
        net.opt.use_bf16_storage = False
    if net.load_param(str(path)) or net.load_model(str(path.with_suffix(".bin"))):
        raise RunnerError(f"{path.name}: ncnn cannot load it; unpack the whole bundle again")
    [entry], [end] = net.input_names(), net.output_names()

    def forward(tensor: Any) -> Any:
        with net.create_extractor() as extractor:
            extractor.input(entry, ncnn.Mat(tensor[0]))
            return np.array(extractor.extract(end)[1])[None]

    return forward


def _torchscript(path: Path, spec: Spec, threads: int, at_once: int) -> Forward:
    import torch

    if spec["output"]["layout"] == "rows":
        import torchvision  # type: ignore[import-untyped,unused-ignore]  # noqa: F401  # its import registers the suppression in the graph

    torch.set_num_threads(threads)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # TorchScript is deprecated
        module = torch.jit.load(str(path), map_location="cpu").eval()

    def forward(tensor: Any) -> Any:
        with torch.inference_mode():
            result = module(torch.from_numpy(tensor))
        return (result[0] if isinstance(result, (tuple, list)) else result).numpy()

    return forward


def _litert(path: Path, spec: Spec, threads: int, at_once: int) -> Forward:
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


def _tensorrt(path: Path, spec: Spec, threads: int, at_once: int) -> Forward:
    """Call the CUDA runtime library directly, so that only TensorRT has to be installed."""
    import ctypes

    import tensorrt

    library = _cudart()
    try:
        cuda = ctypes.CDLL(library)
    except OSError:
        raise RunnerError(f"{library}: not found; install CUDA: an engine runs on an NVIDIA GPU") from None
    runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR))
    engine = runtime.deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        raise RunnerError(
            f"{path.name}: built for another GPU, or not by TensorRT {tensorrt.__version__}; "
            "build it again here: python build.py"
        )
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
            raise RunnerError("CUDA: out of GPU memory, or no GPU; free GPU memory, or check with nvidia-smi")
        context.set_tensor_address(name, place.value)
        places[name] = place

    def copy(target: Any, source: Any, number: int, kind: int) -> None:  # kind 1: to the GPU, 2: back
        if cuda.cudaMemcpy(target, source, ctypes.c_size_t(number), kind):
            raise RunnerError("CUDA: copying to or from the GPU failed; check the GPU with nvidia-smi")

    def forward(tensor: Any) -> Any:
        copy(places[entry], tensor.ctypes.data_as(ctypes.c_void_p), tensor.nbytes, 1)
        if not context.execute_async_v3(0):
            raise RunnerError("TensorRT: the engine did not run; build it again here: python build.py")
        copy(result.ctypes.data_as(ctypes.c_void_p), places[end], result.nbytes, 2)
        return result.copy()  # the next call overwrites it

    return _in_turns([forward])  # small images come from several threads, and a context serves one at a time


def _cudart() -> str:
    """Return the CUDA runtime library: that of the system, or the one that pip installs with TensorRT."""
    import ctypes.util

    package = find_spec("nvidia")
    places = (package.submodule_search_locations if package else None) or []
    with_pip = [path for place in places for path in sorted(Path(place).glob("*/lib/libcudart.so*"))]
    return ctypes.util.find_library("cudart") or str([*with_pip, "libcudart.so"][0])


RUNTIMES: dict[str, tuple[Callable[[Path, Spec, int, int], Forward], str]] = {
    "onnx": (_onnx, "onnxruntime"),
    "openvino": (_openvino, "openvino"),
    "ncnn": (_ncnn, "ncnn"),
    "torchscript": (_torchscript, "torch"),
    "litert": (_litert, "ai-edge-litert"),
    "engine": (_tensorrt, "tensorrt"),
}
# `bench` times the import separately, because it can take longer than loading a model.
MODULES = {name: package for name, (_, package) in RUNTIMES.items()}
MODULES["litert"] = "ai_edge_litert.interpreter"
