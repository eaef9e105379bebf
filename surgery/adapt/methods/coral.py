"""Deep CORAL: the features of both domains are to vary alike."""

from __future__ import annotations

from torch import Tensor

from surgery.adapt.game import Game
from surgery.adapt.pairs import Pair
from surgery.train.rule import Losses


def learn(game: Game, pair: Pair) -> Losses:
    """Learn from one pair of batches.

    References:
        Sun & Saenko 2016, arXiv:1607.01719, eq. 1–4.
    """
    assert pair.target is not None
    source, target = game.see(pair), game.see(pair.target)
    task, apart = game.task_loss(source, pair), coral(source.rows, target.rows)
    loss = game.descend(task + game.trade * apart)
    return {"loss": loss, "task": task.item(), "domain": apart.item()}


def coral(source: Tensor, target: Tensor) -> Tensor:
    """Return the squared Frobenius distance of the covariances of rows (m, d), over 4·d²."""
    return (covariance(source) - covariance(target)).square().sum() / (4 * source.shape[1] ** 2)


def covariance(rows: Tensor) -> Tensor:
    """Return the covariance of rows (m, d), (d, d); of one row it is 0."""
    centred = rows - rows.mean(0)
    return centred.T @ centred / max(1, len(rows) - 1)
