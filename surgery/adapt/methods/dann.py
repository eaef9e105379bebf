"""DANN: the features climb what the domain classifier descends, by a gradient that is turned around."""

from __future__ import annotations

from surgery.adapt.critic import reverse_gradient, tell_apart
from surgery.adapt.game import Game
from surgery.adapt.pairs import Pair
from surgery.train.rule import Losses


def learn(game: Game, pair: Pair) -> Losses:
    """Learn from one pair of batches.

    References:
        Ganin & Lempitsky 2015, arXiv:1409.7495, eq. 10–14; of masks per position, Hoffman et al. 2016,
        arXiv:1612.02649.
    """
    assert pair.target is not None
    source, target = game.see(pair), game.see(pair.target)
    task = game.task_loss(source, pair)
    domain = tell_apart(
        game.critic(reverse_gradient(source.rows, game.trade)),
        game.critic(reverse_gradient(target.rows, game.trade)),
    )
    loss = game.descend(task + domain.loss)
    return {"loss": loss, "task": task.item(), "domain": domain.loss.item(), "accuracy": domain.accuracy}
