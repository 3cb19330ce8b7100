"""Run forward and backward passes in bfloat16 on a CPU that supports it; weights, losses and averages stay in float32.

Ultralytics refuses bfloat16 on a CPU. Import this late: it imports torch and Ultralytics.
"""

from __future__ import annotations

import time
from copy import deepcopy
from typing import Any

import torch

from pipeline import files
from pipeline.probing import wiring
from pipeline.records.training import Choice
from pipeline.train.features import Shortened
from pipeline.upstream import environment

# The first layer stays in float32: bfloat16 has 8 bits of precision and cannot hold all 256 values of a pixel. With
# that layer in bfloat16, the gradients of the next layers pointed elsewhere (cosine similarity to those in float32 0.1
# to 0.8, otherwise 0.95 to 0.99).
FIRST = 1
PAYS = 0.9  # highest ratio of bfloat16 to float32 time that counts as faster; two passes cannot resolve less


class InBfloat16(Shortened):
    """A detection model that trains in bfloat16, except in its first layer. Its outputs are float32."""

    def _predict_once(self, x: Any, profile: bool = False, embed: Any = None) -> Any:
        if not self.training:
            return super()._predict_once(x, profile, embed)
        cut, known = getattr(x, "features", (0, None))
        if known is None:
            self._refuse_blank_images()
            known = {-1: x, 0: self.model[0](x)}
        with torch.autocast("cpu", torch.bfloat16):
            return _in_32_bits(wiring.run(self.model[max(cut, FIRST) :], dict(known)))


def _in_32_bits(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.float()
    if isinstance(value, dict):
        return {key: _in_32_bits(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_in_32_bits, value))
    return value


def choose(wanted: str, model: Any, images: int, imgsz: int) -> Choice:
    """Return `fp32` or `bf16` with the reason. `auto` times two forward and backward passes of each."""
    if next(model.parameters()).device.type != "cpu":
        return {"value": "fp32", "reason": "on a GPU, Ultralytics' own `amp` decides"}
    if wanted != "auto":
        return {"value": wanted, "reason": "given in the config"}
    if not has_bfloat16():
        return {"value": "fp32", "reason": "this CPU has neither AVX512-BF16 nor AMX"}
    full, short = _timings(model, images, imgsz)
    timings = f"{full * 1000:.0f} ms in 32 bits, {short * 1000:.0f} ms in bfloat16"
    return {"value": _faster(full, short), "reason": f"{images} images forward and backward: {timings}"}


def seconds(wanted: str, model: Any, images: int, imgsz: int) -> float:
    """Return the seconds of one forward and backward pass in the precision that `choose` would choose."""
    if next(model.parameters()).device.type != "cpu" or wanted == "fp32" or not has_bfloat16():
        return _pass_seconds(deepcopy(model), images, imgsz)
    full, short = _timings(model, images, imgsz)
    return short if "bf16" in (wanted, _faster(full, short)) else full


def _faster(full: float, short: float) -> str:
    return "bf16" if short < PAYS * full else "fp32"


def _timings(model: Any, images: int, imgsz: int) -> tuple[float, float]:
    """Return the seconds of a pass in float32 and in bfloat16.

    They are kept in `.cache/`, because the choice changes the model: it stays the same on this machine as long as
    PyTorch, the number of threads, the trained weights, the batch and the image size do.
    """
    file = environment.CACHE / "precision.json"
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    machine = f"{environment.device_name('cpu')}, torch {torch.__version__}, {torch.get_num_threads()} threads"
    key = f"{machine}, {trained} weights, {images} x {imgsz}"
    file.parent.mkdir(parents=True, exist_ok=True)
    with files.holding(file.parent):  # so that two training processes do not disturb each other's measurement
        known = files.read_json(file) if file.is_file() else {}
        if key not in known:
            full = _pass_seconds(deepcopy(model), images, imgsz)
            short = _pass_seconds(as_bfloat16(deepcopy(model)), images, imgsz)
            known[key] = [round(full, 4), round(short, 4)]
            files.write_json(file, known)
    full, short = known[key]
    return full, short


def as_bfloat16(model: Any) -> Any:
    """Let a DetectionModel compute in bfloat16 while it trains, in place."""
    model.__class__ = InBfloat16
    return model


def has_bfloat16() -> bool:
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # older versions lack the function
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16"))


def _pass_seconds(model: Any, images: int, imgsz: int) -> float:
    """Return the time of the faster of two passes, after one to warm up. Changes the model's BatchNorm statistics."""
    model.train().cached = {}  # the images are blank on purpose
    device = next(model.parameters()).device
    batch = torch.zeros(images, 3, imgsz, imgsz, device=device).contiguous(memory_format=torch.channels_last)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        total = sum(tensor.sum() for tensor in _tensors(model(batch)))
        total.backward()
        float(total.detach())  # waits for a GPU
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value] if value.requires_grad else []
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [tensor for part in parts for tensor in _tensors(part)]
