"""The game of DANN in two steps a batch, each of which puts back what the other one trains."""

from __future__ import annotations

from surgery.adapt.critic import tell_apart
from surgery.adapt.game import Game
from surgery.adapt.pairs import Pair
from surgery.train.rule import Losses


def learn(game: Game, pair: Pair) -> Losses:
    """Learn from one pair of batches.

    References:
        Goodfellow et al. 2014, arXiv:1406.2661, algorithm 1 (alternating steps); Tzeng et al. 2017,
        arXiv:1702.05464, eq. 7 (swapped labels in the place of a turned gradient).
    """
    assert pair.target is not None

    # 1. The domain classifier learns to tell source from target; the features are put back as they were.
    with game.restored(game.features):
        source, target = game.see(pair), game.see(pair.target)
        domain = tell_apart(game.critic(source.rows), game.critic(target.rows))
        game.descend(domain.loss)

    # 2. Features and task head learn together, the features against swapped domain labels; the domain
    #    classifier is put back as it was.
    with game.restored(game.critic.parameters()):
        source, target = game.see(pair), game.see(pair.target)
        task = game.task_loss(source, pair)
        confusion = tell_apart(game.critic(source.rows), game.critic(target.rows), swapped=True)
        loss = game.descend(task + game.trade * confusion.loss)

    return {"loss": loss, "task": task.item(), "domain": domain.loss.item(), "accuracy": domain.accuracy}
