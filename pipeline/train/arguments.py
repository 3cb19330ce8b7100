"""Decide which of Ultralytics' arguments `train.args` may hold.

Three tables cover every key of Ultralytics' defaults. A test compares them with the installed version, so that a key
added by a later version needs a decision here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.errors import ConfigError, did_you_mean

# Arguments that the pipeline sets itself, each with the config key or option that controls it.
OURS = {
    "model": "train.weights",
    "pretrained": "train.weights",
    "imgsz": "train.imgsz",
    "batch": "train.batch",
    "lr0": "train.lr0",
    "epochs": "train.phases",
    "freeze": "train.phases",
    "patience": "train.phases",
    "seed": "seed",
    "data": "convert.source",
    "device": "--device",
    "workers": "--workers",
    **dict.fromkeys(
        ("project", "name", "exist_ok", "resume", "save", "mode", "task", "cfg"), "the name of the config file"
    ),
}

# These need the images in every step, so the outputs of frozen layers cannot be cached.
NEED_IMAGES = frozenset({"multi_scale", "compile", "distill_model"})
# These vary the images from epoch to epoch. They have no effect when the outputs of frozen layers are cached.
AUGMENTATIONS = frozenset({"augmentations", "bgr", "close_mosaic", "cutmix", "degrees", "fliplr", "flipud", "hsv_h"})
AUGMENTATIONS |= {"hsv_s", "hsv_v", "mixup", "mosaic", "perspective", "scale", "shear", "translate"}
# Ultralytics turns these off in the last `close_mosaic` epochs, so a phase that is no longer never has them.
CLOSED = frozenset({"cutmix", "mixup", "mosaic"})
CLOSE_MOSAIC = 10  # Ultralytics' default
ALLOWED = NEED_IMAGES | AUGMENTATIONS
ALLOWED |= {
    "amp",
    "box",
    "cache",
    "channels_last",
    "cls",
    "cls_pw",
    "cls_remap",
    "cos_lr",
    "deterministic",
    "dfl",
    "dis",
}
ALLOWED |= {"lrf", "momentum", "nbs", "optimizer", "plots", "rect", "val", "verbose", "weight_decay"}
ALLOWED |= {"warmup_bias_lr", "warmup_epochs", "warmup_momentum"}


def _each(keys: str, reason: str) -> dict[str, str]:
    return dict.fromkeys(keys.split(), reason)


# Why each of these is refused, and what to do instead.
REFUSED = {
    "split": "the best epoch is chosen on val alone, so that test chooses nothing; set convert.split",
    "single_cls": "the model would have one class and the dataset several; merge them in convert.classes",
    "classes": "would drop boxes silently; choose the classes in convert.classes",
    "fraction": "would silently train on the first images by name only; remove images from the source",
    "time": "hours would replace the epochs of each phase; set train.phases",
    "save_period": "these checkpoints would be deleted with their phase; a killed training resumes without them",
    "quantize": "would train with simulated 8-bit weights; set `quantize` in export.targets",
    "profile": "would export and time the model during training; run `make bench-export`",
    **_each("conf iou max_det", "validation in training keeps Ultralytics' value; set validate.{key}"),
    **_each("save_json save_txt save_conf save_crop visualize", "`make validate` writes predictions and errors"),
    **_each("augment agnostic_nms dnn embed", "is an argument of prediction; nothing here predicts with it"),
    **_each("nms dynamic opset simplify", "is an argument of export; set it in export.targets"),
    **_each("format", "is an argument of export; set export.targets"),
    **_each("optimize workspace", "is an argument of export that no target here takes; remove it"),
    **_each(
        "source vid_stride stream_buffer show save_frames show_labels show_conf show_boxes line_width tracker",
        "is an argument of prediction and tracking; remove it",
    ),
    **_each("overlap_mask mask_ratio retina_masks", "is for segmentation; remove it"),
    **_each("copy_paste copy_paste_mode", "needs segmentation masks, but there are only boxes; remove it"),
    **_each("dropout auto_augment erasing", "is for classification; remove it"),
    **_each("pose kobj rle", "is for pose estimation; remove it"),
    **_each("angle", "is for oriented boxes; remove it"),
    **_each("dlog dgrad dlam", "is for depth estimation; remove it"),
}


def check(args: Mapping[str, Any], recipe: str) -> None:
    """Raise ConfigError, one line per key, for the keys and values that `train.args` may not hold.

    Call `environment.prepare` first: Ultralytics itself checks the values.
    """
    from ultralytics.cfg import get_cfg

    errors = [f"train.args.{key}: {reason}" for key in args if (reason := _reason_against(key))]
    if is_automatic(args.get("optimizer")) and recipe != "ultralytics":
        errors.append("train.args.optimizer: auto ignores the rate of a phase; name one, such as AdamW")
    if not errors:
        try:
            get_cfg(overrides=dict(args))
        except (SyntaxError, TypeError, ValueError) as error:
            errors.append(f"train.args: {' '.join(str(error).split())}")
    if errors:
        raise ConfigError("\n".join(errors))


def is_automatic(optimizer: Any) -> bool:
    """Return whether Ultralytics would choose optimizer and rate itself; it ignores the case of a name."""
    return str(optimizer).lower() == "auto"


def is_sgd(optimizer: Any) -> bool:
    """Return whether an optimizer is SGD or MuSGD; all others divide each step by the size of recent gradients."""
    return str(optimizer).lower() in ("sgd", "musgd")


def _reason_against(key: str) -> str:
    if key in OURS:
        return f"is set by the pipeline; set {OURS[key]} instead"
    if key in REFUSED:
        return REFUSED[key].format(key=key)
    if key not in ALLOWED:
        return f"not a training argument of Ultralytics{did_you_mean(key, [*ALLOWED, *OURS])}"
    return ""


def check_cached(args: Mapping[str, Any]) -> None:
    """Raise ConfigError for an argument that contradicts cached features."""
    if args.get("rect"):
        raise ConfigError(
            "train.args.rect: a phase with cached features trains on square images; "
            "set train.cache_features to false, or remove rect"
        )


def without_effect(args: Mapping[str, Any], epochs: int, cached: bool) -> list[str]:
    """Return the augmentations in the config that a phase of so many epochs does not apply, sorted.

    With `cached` features it applies none. An augmentation that is given as 0 is not applied in any case.
    """
    if cached:
        return sorted(key for key in AUGMENTATIONS.intersection(args) if args[key] or key == "close_mosaic")
    is_closed = epochs <= (args.get("close_mosaic", CLOSE_MOSAIC) or 0)  # null closes nothing, as 0
    return sorted(key for key in CLOSED if args.get(key) and is_closed)
