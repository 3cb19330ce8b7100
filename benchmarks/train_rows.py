"""Define the rows of benchmarks/train.py: our config's `train` section, or the arguments of `yolo train`."""

from __future__ import annotations

import re
from typing import Any

from pipeline.train import recipe

EPOCHS = 15
FIVE_EPOCHS = [{"epochs": 1, "freeze": "backbone"}, {"epochs": 4}]
START = {"random": "yolo26n.yaml", "starter": "data/weights/starter-yolo26n.pt", "coco": "data/weights/yolo26n.pt"}
# Arguments of `yolo train` that differ from its defaults.
AS_LARGE_STEPS = {"epochs": 5, "batch": 4, "nbs": 4, "val": False}  # as ours
STOCK_ARGS: dict[str, dict[str, Any]] = {
    "stock": {"epochs": EPOCHS},
    "stock-backbone": {"freeze": 11, **AS_LARGE_STEPS},
    "stock-all-but-head": {"freeze": 23, **AS_LARGE_STEPS},
}
RIVAL = re.compile(r"(stock|tuned)-(\d+)(-freeze)?(-val)?")
TUNED = {"batch": 4, "nbs": 4, "warmup_epochs": 0.5}
OPEN = ("phases", "lr0", "batch")  # keys that the recipe's rows leave to the recipe


def theirs(what: str) -> dict[str, Any] | None:
    """Return the arguments of `yolo train` for one of its rows; None for one of ours."""
    if rival := RIVAL.fullmatch(what):
        frozen = {"freeze": 11} if rival[3] else {}
        tuned = TUNED if rival[1] == "tuned" else {}
        return {"epochs": int(rival[2]), "val": bool(rival[4]), **tuned, **frozen}
    return STOCK_ARGS.get(what)


def uses_all_cores(what: str) -> bool:
    return RIVAL.fullmatch(what) is not None


def of_recipe(train: dict[str, Any], what: str) -> dict[str, Any]:
    """Return the `train` section that leaves everything to the recipe."""
    left = {key: value for key, value in train.items() if key not in OPEN}
    if what.endswith("-val"):
        left["args"] = {**left.get("args", {}), "val": True}
    kind, _, value = what.removesuffix("-val").partition("-")
    if value in ("fp32", "bf16"):
        left["precision"] = value
    return left | ({"recipe": value} if kind == "recipe" else {"minutes": float(value)} if kind == "minutes" else {})


def phases(config: dict[str, Any], what: str, fewer_images: int | None) -> dict[str, Any]:
    """Return the `train` section of the config for one row of the tables."""
    train = dict(config["train"])
    if what.split("-")[0] in ("default", "recipe", "minutes"):
        return of_recipe(train, what)
    train.setdefault("phases", FIVE_EPOCHS)
    few = sum(phase["epochs"] for phase in train["phases"])
    to_the_end = {**train.get("args", {}), "val": False}  # validate only at the end
    if (start := what.removesuffix("-frozen")) in START:
        if fewer_images:
            frozen, free = recipe.epochs(fewer_images)
            first = [{"epochs": frozen, "freeze": "backbone"}] if frozen else []
            train["phases"] = [*first, {"epochs": free}]
        if what != start:
            train["phases"] = [{"epochs": sum(phase["epochs"] for phase in train["phases"]), "freeze": "backbone"}]
        train |= {"weights": START[start], "cache_features": False, "args": to_the_end}
    elif what == "quick":
        train |= {"phases": [{"epochs": 3, "freeze": 5, "lr": 2}], "args": to_the_end}
    elif what == "equal":
        train["phases"] = [{"epochs": 3, "freeze": "backbone"}, {"epochs": EPOCHS - 3}]
    elif what == "scratch":
        train |= {"weights": START["random"], "phases": [{"epochs": few}], "args": to_the_end}
    elif what == "full":
        train |= {"phases": [{"epochs": few}], "args": to_the_end}
    elif (freeze := what.removesuffix("-cached")) in ("backbone", "all-but-head"):
        train |= {"phases": [{"epochs": few, "freeze": freeze}], "cache_features": freeze != what, "args": to_the_end}
    return train
