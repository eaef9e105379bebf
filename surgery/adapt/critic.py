"""The domain classifier, and the layer that turns its gradient around."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HIDDEN = 100
"""Units of the hidden layer, as the paper has for digits."""


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradients[0], None


def reverse_gradient(x: Tensor, strength: float) -> Tensor:
    """Return x as it is; on the way back its gradient is multiplied by −strength.

    References:
        Ganin & Lempitsky 2015, arXiv:1409.7495, section 3 (gradient reversal layer).
    """
    reversed_: Tensor = _Reverse.apply(x, strength)  # type: ignore[no-untyped-call]
    return reversed_


def build_critic(width: int, hidden: int = HIDDEN) -> nn.Sequential:
    """Return a domain classifier of rows: (m, width) -> (m, 1), above 0 for the target."""
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, 1))


@dataclass(frozen=True)
class Told:
    """How well a domain classifier tells two domains apart.

    Attributes:
        loss: Binary cross-entropy, each domain counting one half.
        accuracy: Share of the rows whose domain is right, each domain counting one half; 0.5 is none.
    """

    loss: Tensor
    accuracy: float


def tell_apart(
    source: Tensor, target: Tensor, swapped: bool = False, weights: tuple[Tensor, Tensor] | None = None
) -> Told:
    """Judge a domain classifier's logits, of any shape.

    Args:
        source, target: Logits of rows or positions of each domain.
        swapped: The loss is against the wrong domain: who descends on it makes the domains alike.
        weights: How much each row counts within its domain, in the shape of the logits.
    """
    losses = []
    for k, (logits, label) in enumerate(((source, 0.0), (target, 1.0))):
        wanted = torch.full_like(logits, 1 - label if swapped else label)
        each = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        losses.append(each.mean() if weights is None else (each * weights[k]).sum() / weights[k].sum())
    right = ((source <= 0).float().mean() + (target > 0).float().mean()) / 2
    return Told((losses[0] + losses[1]) / 2, float(right))
