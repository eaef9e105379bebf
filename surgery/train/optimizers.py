"""Optimizers: which parameters learn at which rate, and by which rule."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from surgery.nets.assemble import Model
from surgery.train.strategies import Phase

BETA2 = 0.999
COMPANION = "companion"
"""Name under which a model carries what learns beside it, at the rate of the new layers."""


def make_optimizer(
    model: Model,
    phase: Phase,
    weight_decay: float,
    name: str = "adamw",
    layer_decay: float = 1.0,
    momentum: float = 0.9,
    new_from: int | None = None,
) -> torch.optim.Optimizer:
    """Return an optimizer over what a phase trains; biases, norms and scalars are not decayed.

    Args:
        model: The model.
        phase: Its rates; frozen parameters are left out.
        weight_decay: Of weights of two and more dimensions, decoupled from the gradient but for `sgd`.
        name: One of `config.OPTIMIZERS`.
        layer_decay: The backbone's last stage learns at the phase's rate, each one before it at this share
            of the next one's.
        momentum: Share of the mean gradient that stays at each step.
        new_from: Stages from this one on are new, and learn at the rate of the head; None: none are.

    References:
        Loshchilov & Hutter 2019, arXiv:1711.05101 (AdamW); Howard & Ruder 2018, arXiv:1801.06146, section
        3.2 (a rate per layer).
    """
    stages = model.backbone.stages
    modules: list[tuple[nn.Module, float]] = [(model.head, phase.lr)]
    if hasattr(model, COMPANION):
        modules.append((getattr(model, COMPANION), phase.lr))
    begin = len(stages) if new_from is None else new_from
    modules += [
        (stage, phase.lr if k >= begin else phase.backbone_lr * layer_decay ** (len(stages) - 1 - k))
        for k, stage in enumerate(stages)
    ]
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for module, lr in modules:
        for parameter in module.parameters():
            if parameter.requires_grad:
                decay = weight_decay if parameter.ndim > 1 else 0.0
                groups.setdefault((lr, decay), []).append(parameter)
    return _build(
        name,
        momentum,
        [
            {"params": params, "peak_lr": lr, "lr": lr, "weight_decay": decay}
            for (lr, decay), params in groups.items()
        ],
    )


def _build(name: str, momentum: float, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    if name == "adamw":
        return torch.optim.AdamW(groups, betas=(momentum, BETA2))
    if name == "nadamw":
        return torch.optim.NAdam(groups, betas=(momentum, BETA2), decoupled_weight_decay=True)
    if name == "sgd":
        return torch.optim.SGD(groups, momentum=momentum, nesterov=True)
    from timm.optim import create_optimizer_v2

    made: torch.optim.Optimizer = create_optimizer_v2(groups, opt=name, momentum=momentum)
    return made
