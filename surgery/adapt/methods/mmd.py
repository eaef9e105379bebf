"""DAN: the features of both domains are to have the same mean under several kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from surgery.adapt.game import Game
from surgery.adapt.pairs import Pair
from surgery.train.rule import Losses

BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Of the Gaussian kernels, as multiples of the mean squared distance between rows."""
MOST = 256
"""Rows of each domain that are compared at a time; of more, as many are drawn."""


def learn(game: Game, pair: Pair) -> Losses:
    """Learn from one pair of batches.

    References:
        Long et al. 2015, arXiv:1502.02791 (DAN), with the mean of the kernels in the place of learnt weights.
    """
    assert pair.target is not None
    source, target = game.see(pair), game.see(pair.target)
    task, apart = game.task_loss(source, pair), mmd(_draw(source.rows), _draw(target.rows))
    loss = game.descend(task + game.trade * apart)
    return {"loss": loss, "task": task.item(), "domain": apart.item()}


def mmd(source: Tensor, target: Tensor) -> Tensor:
    """Return the squared maximum mean discrepancy of rows (m, d) and (k, d), unitless, 0 for the same rows.

    References:
        Gretton et al. 2012, JMLR 13, eq. 5 (the biased estimate, which is never negative).
    """
    rows = torch.cat([source, target])
    squared = torch.cdist(rows, rows).square()  # (m+k, m+k)
    scale = squared.detach().mean().clamp(min=1e-12)
    kernel = torch.stack([torch.exp(-squared / (scale * factor)) for factor in BANDWIDTHS]).mean(0)
    m = len(source)
    return kernel[:m, :m].mean() + kernel[m:, m:].mean() - 2 * kernel[:m, m:].mean()


def _draw(rows: Tensor) -> Tensor:
    return rows if len(rows) <= MOST else rows[torch.randperm(len(rows))[:MOST].to(rows.device)]
