"""CDAN: the domain classifier sees features together with what the model makes of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from surgery.adapt.critic import build_critic, reverse_gradient, tell_apart
from surgery.adapt.game import Game
from surgery.adapt.pairs import Pair
from surgery.adapt.seen import Seen, entropy
from surgery.train.rule import Losses

LARGEST = 4096
"""Values of the product of features and probabilities up to which it is taken whole …"""
PROJECTED = 1024
"""… and the length of the random projection that stands for a longer one."""


class Conditioned(nn.Module):
    """A domain classifier of features ⊗ probabilities.

    Args:
        width: Values of a row.
        classes: Number of classes.

    References:
        Long et al. 2018, arXiv:1705.10667, eq. 6–8 (multilinear map, and its randomised form).
    """

    features: Tensor
    answers: Tensor

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.whole = width * classes <= LARGEST
        if not self.whole:
            self.register_buffer("features", torch.randn(width, PROJECTED) / width**0.5)
            self.register_buffer("answers", torch.randn(classes, PROJECTED))
        self.critic = build_critic(width * classes if self.whole else PROJECTED)

    def forward(self, rows: Tensor, shares: Tensor) -> Tensor:
        """(m, width) and (m, classes) -> logits (m, 1)."""
        if self.whole:
            joint = (rows[:, :, None] * shares[:, None, :]).flatten(1)  # (m, width, 1)·(m, 1, classes)
        else:
            joint = (rows @ self.features) * (shares @ self.answers)  # (m, PROJECTED)
        logits: Tensor = self.critic(joint)
        return logits


def learn(game: Game, pair: Pair) -> Losses:
    """Learn from one pair of batches; rows that the model is sure of count more.

    References:
        Long et al. 2018, arXiv:1705.10667, eq. 9–10 (CDAN+E).
    """
    assert pair.target is not None
    source, target = game.see(pair), game.see(pair.target)
    task = game.task_loss(source, pair)
    domain = tell_apart(
        _judge(game, source), _judge(game, target), weights=(_sureness(source), _sureness(target))
    )
    loss = game.descend(task + domain.loss)
    return {"loss": loss, "task": task.item(), "domain": domain.loss.item(), "accuracy": domain.accuracy}


def _judge(game: Game, seen: Seen) -> Tensor:
    logits: Tensor = game.critic(reverse_gradient(seen.rows, game.trade), seen.shares.detach())
    return logits


def _sureness(seen: Seen) -> Tensor:
    return 1 + torch.exp(-entropy(seen.shares.detach()))[:, None]  # (m, 1)
