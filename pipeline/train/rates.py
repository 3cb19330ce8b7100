"""Set learning rates per part of the model, and pull weights towards their source (L2-SP)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from pipeline.train.freeze import part_of


def split(optimizer: torch.optim.Optimizer, model: Any, factors: Mapping[str, float]) -> None:
    """Split each of Ultralytics' parameter groups by part of the model and multiply each part's rate by its factor.

    Call it before the scheduler is created, which takes each group's rate as its initial one. Parameters outside the
    model (the projections to a teacher's features) get the head's rate.
    """
    parts = {parameter: part_of(name, model) for name, parameter in model.named_parameters()}
    groups = []
    for group in optimizer.param_groups:
        for part, factor in factors.items():
            members = [parameter for parameter in group["params"] if parts.get(parameter, "head") == part]
            if members:
                groups.append({**group, "params": members, "lr": group["lr"] * factor, "part": part})
    optimizer.param_groups = groups


def pull(optimizer: torch.optim.Optimizer, model: Any, source: Mapping[str, torch.Tensor], strength: float) -> None:
    """Pull trainable weights towards `source` by L2-SP (Li et al. 2018, arXiv:1802.01483).

    The penalty strength / 2 * |w - source|^2 is not added to the gradient, where Adam would scale it away. Instead its
    proximal map, w <- source + (w - source) / (1 + lr * strength), is applied after each step, decoupled like AdamW's
    decay (Loshchilov & Hutter 2019). It never overshoots: an infinite strength restores the source. The head is
    excluded, because its classes are new, and so is every tensor without a counterpart of the same shape in the source.
    """
    anchors = {
        parameter: source[name].to(parameter.device, parameter.dtype)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and part_of(name, model) != "head" and name in source
        if source[name].shape == parameter.shape
    }

    def towards_source(stepped: torch.optim.Optimizer, *_: Any) -> None:
        with torch.no_grad():
            for group in stepped.param_groups:
                share = 1 - 1 / (1 + group["lr"] * strength)
                for parameter in group["params"]:
                    if parameter in anchors:
                        parameter.lerp_(anchors[parameter], share)

    optimizer.register_step_post_hook(towards_source)
