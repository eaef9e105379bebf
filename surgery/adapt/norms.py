"""Batch norms that are given the statistics of what passes them, and compute what they did."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@dataclass
class _Sums:
    """Of the values of each channel."""

    first: Tensor | float = 0.0
    second: Tensor | float = 0.0
    count: int = 0

    def add(self, x: Tensor) -> None:
        flat = x.detach().double().transpose(0, 1).flatten(1)  # (n, c, …) -> (c, n·…)
        self.first = self.first + flat.sum(1)
        self.second = self.second + flat.square().sum(1)
        self.count += flat.shape[1]


@torch.no_grad()
def settle_norms(model: nn.Module, run: Callable[[Any], object], batches: Iterable[Any]) -> None:
    """Give every batch norm the statistics of what passes it, and change its scale and shift against that.

    What the model computes stays as it is. A network that was fine-tuned with frozen batch norm has the
    statistics of what it was pretrained on: those of another domain in their place would move it by all that
    lies between pretraining and its own images, and not by the change of domain alone.

    Args:
        model: In inference mode; changed in place. Norms without scale and shift are left alone.
        run: Runs the model on a batch.
        batches: Images of the domain that it has learnt.
    """
    norms = [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.affine and module.running_mean is not None
    ]
    sums = {norm: _Sums() for norm in norms}
    hooks = [
        norm.register_forward_pre_hook(lambda module, inputs: sums[module].add(inputs[0])) for norm in norms
    ]
    try:
        for batch in batches:
            run(batch)
    finally:
        for hook in hooks:
            hook.remove()
    for norm, seen in sums.items():
        if seen.count > 1:
            _settle(norm, seen)


def _settle(norm: _BatchNorm, seen: _Sums) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    mean, square = torch.as_tensor(seen.first) / seen.count, torch.as_tensor(seen.second) / seen.count
    variance = (square - mean.square()).clamp(min=0)
    old_mean, old_deviation = norm.running_mean.double(), (norm.running_var.double() + norm.eps).sqrt()
    scale = norm.weight.double()
    norm.bias.copy_(norm.bias.double() + scale * (mean - old_mean) / old_deviation)
    norm.weight.copy_(scale * (variance + norm.eps).sqrt() / old_deviation)
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
