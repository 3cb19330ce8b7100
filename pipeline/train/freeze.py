"""Resolve `freeze:` and prove that frozen layers did not change.

Ultralytics turns each item into the text `model.ITEM.` and freezes every parameter whose name contains that text.
A name that matches nothing freezes nothing, without a warning. So `freeze:` passes through these steps:

    resolve          turns the config's words into the checked list that Ultralytics takes, for the phase's plan
    snapshot         copies the frozen tensors in memory, before the first step
    digests_before   hashes frozen and trainable tensors, for a check after a crash
    moved            finds frozen tensors that changed in memory: after every epoch, before it is saved
    restore          writes them into the moving average, whose updates may flip bits: also after every epoch
    prove            checks the saved model against the digests; the proof goes into `train.json`
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from typing import Any

from pipeline.config.training import FREEZE_WORDS
from pipeline.errors import ConfigError, PipelineError, counted, did_you_mean
from pipeline.records.training import Proof

Freeze = str | int | tuple[int | str, ...]


def resolve(freeze: Freeze, model: Any, where: str) -> list[int | str]:
    """Return the `freeze:` of a phase as the list that Ultralytics takes.

    `model` is a DetectionModel; `where` names the phase in errors. Raises ConfigError for an item that names no layer,
    for a layer named twice, and for a list that leaves nothing to train.
    """
    layers = len(model.model)
    items: list[int | str] = []
    for entry in freeze if isinstance(freeze, tuple) else (freeze,):
        if entry == "none" and isinstance(freeze, tuple):
            raise ConfigError(f"{where}: 'none' and other layers in one list; name the layers, or write only none")
        if entry == "backbone":
            items += range(len(model.yaml["backbone"]))
        elif entry == "all-but-head":
            items += range(layers - 1)
        elif isinstance(freeze, int):
            if freeze > layers:
                raise ConfigError(f"{where}: {freeze} layers, but the model has {layers} (0 to {layers - 1})")
            items += range(freeze)
        elif entry != "none":
            items.append(_item(entry, model, where))
    _check_once(items, where)
    names = [name for name, _ in model.named_parameters()]
    if len(frozen_names(items, names)) == len(names):
        raise ConfigError(f"{where}: freezes the whole model and leaves nothing to train; freeze fewer layers")
    return items


def _item(entry: int | str, model: Any, where: str) -> int | str:
    """Return the layer number or part name for an entry. Raises ConfigError if the model has no such weights."""
    item = entry if isinstance(entry, int) else entry.strip(".").removeprefix("model.")
    item = int(item) if isinstance(item, str) and item.isdecimal() else item
    known = [name.removeprefix("model.") for name, _ in model.named_modules() if name.startswith("model.")]
    if str(item) not in known:
        hint = did_you_mean(str(item), [*FREEZE_WORDS, *known])
        raise ConfigError(
            f"{where}: {entry!r} is not in the model{hint}; layers are 0 to {len(model.model) - 1}, "
            "parts look like '23.cv3', and groups are backbone and all-but-head"
        )
    if not frozen_names([item], (name for name, _ in model.named_parameters())):
        raise ConfigError(f"{where}: {entry!r} has no weights to freeze; remove it")
    return item


def _check_once(items: list[int | str], where: str) -> None:
    for number, item in enumerate(items):
        for other in items[:number] + items[number + 1 :]:
            if f"{item}.".startswith(f"{other}.") and (item != other or items.index(item) != number):
                raise ConfigError(f"{where}: {item!r} is in {other!r}, which already freezes it; keep one of them")


def cut(items: Collection[int | str]) -> int:
    """Return how many of the first layers are frozen completely, without a gap."""
    number = 0
    while number in items:
        number += 1
    return number


def part_of(name: str, model: Any) -> str:
    """Return the part (`backbone`, `neck` or `head`) of a parameter such as `model.16.conv.weight`."""
    layer = int(name.split(".")[1])
    if layer < len(model.yaml["backbone"]):
        return "backbone"
    return "head" if layer == len(model.model) - 1 else "neck"


def frozen_names(items: Iterable[int | str], names: Iterable[str]) -> list[str]:
    """Return the tensors that Ultralytics freezes for `items`, by its own rule (engine/trainer.py, `_setup_train`)."""
    patterns = [f"model.{item}." for item in items]
    return [name for name in names if any(pattern in name for pattern in patterns)]


def digests(model: Any, names: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 of each named parameter or buffer of a model.

    Tensors are hashed in half precision, as a checkpoint stores them, so that the model in memory and the file give
    the same digests.
    """
    state = model.state_dict()
    return {name: hashlib.sha256(_half(state[name]).tobytes()).hexdigest() for name in names}


def _half(tensor: Any) -> Any:
    tensor = tensor.detach().cpu()
    return (tensor.half() if tensor.is_floating_point() else tensor).contiguous().numpy()


def digests_before(model: Any, frozen: Collection[str]) -> dict[str, dict[str, str]]:
    """Return the digests of the tensors named `frozen` and of all trainable parameters."""
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    return {"frozen": digests(model, frozen), "trainable": digests(model, trainable)}


def snapshot(model: Any, items: Iterable[int | str], buffers: bool = True) -> dict[str, Any]:
    """Copy all frozen tensors at full precision, with BatchNorm's running statistics if `buffers`."""
    state = model.state_dict() if buffers else dict(model.named_parameters())
    return {name: state[name].detach().clone() for name in frozen_names(items, state.keys())}


def moved(before: dict[str, Any], model: Any) -> list[str]:
    """Return the names of the tensors that differ from an earlier snapshot in any bit."""
    state = model.state_dict()
    return [name for name, tensor in before.items() if not bool((state[name] == tensor).all())]


def restore(before: dict[str, Any], average: Any) -> None:
    """Write the frozen tensors of a snapshot into the moving average of the weights.

    The average of a tensor that never changes is that tensor, but an update need not preserve its bits: Ultralytics'
    interpolation turns -0 into 0.
    """
    state = average.state_dict()
    for name, tensor in before.items():
        state[name].copy_(tensor)


def prove(before: dict[str, dict[str, str]], model: Any) -> Proof:
    """Compare a saved model with the digests from before its phase; return the proof for `train.json`.

    The proof holds one digest over all frozen tensors before the phase and one over those of the saved model. Raises
    PipelineError if a frozen tensor changed or no trainable one did.
    """
    frozen, trainable = before["frozen"], before["trainable"]
    frozen_after, trainable_after = digests(model, frozen), digests(model, trainable)
    if changed := [name for name in frozen if frozen_after[name] != frozen[name]]:
        raise PipelineError(complaint(changed))
    learnt = sum(trainable_after[name] != trainable[name] for name in trainable)
    if not learnt:
        raise PipelineError("training changed no weight; raise train.lr0 or the number of epochs")
    return {
        "frozen_tensors": len(frozen),
        "frozen_sha256_before": _overall(frozen),
        "frozen_sha256_after": _overall(frozen_after),
        "trainable_tensors": len(trainable),
        "trainable_changed": learnt,
    }


def _overall(digests: dict[str, str]) -> str:
    """Return one SHA-256 over the digests of many tensors, sorted by name."""
    return hashlib.sha256("".join(f"{name} {digests[name]}\n" for name in sorted(digests)).encode()).hexdigest()


def complaint(changed: list[str]) -> str:
    """Return the error message for frozen tensors that changed, given their names."""
    return (
        f"{counted(len(changed), 'frozen tensor')} changed in training, for example {changed[0]}, so the model is "
        "not what the config says; this is a bug in the pipeline: please report it"
    )
