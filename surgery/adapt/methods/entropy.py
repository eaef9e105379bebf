"""Entropy minimisation: the model is to be sure of its answers on the target."""

from __future__ import annotations

import math

from surgery.adapt.game import Game
from surgery.adapt.pairs import Pair
from surgery.adapt.seen import entropy, probabilities
from surgery.train.rule import Losses


def learn(game: Game, pair: Pair) -> Losses:
    """Learn from one pair of batches.

    References:
        Grandvalet & Bengio 2005 (entropy regularisation); of masks per pixel, Vu et al. 2019,
        arXiv:1811.12833, eq. 2–4 (MinEnt).
    """
    assert pair.target is not None
    source, target = game.see(pair), game.see(pair.target)
    task = game.task_loss(source, pair)
    shares = probabilities(target.logits, game.output)
    unsure = entropy(shares).mean() / math.log(shares.shape[1])  # 1 for no idea at all
    loss = game.descend(task + game.trade * unsure)
    return {"loss": loss, "task": task.item(), "domain": unsure.item()}
