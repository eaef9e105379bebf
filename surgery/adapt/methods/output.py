"""AdaptSegNet: a domain classifier looks at the masks that the model draws, not at its features."""

from __future__ import annotations

from torch import nn

from surgery.adapt.critic import reverse_gradient, tell_apart
from surgery.adapt.game import Game
from surgery.adapt.pairs import Pair
from surgery.adapt.seen import probabilities
from surgery.train.rule import Losses

CHANNELS = (32, 64, 128)
SLOPE = 0.2


def build_judge(classes: int) -> nn.Sequential:
    """Return a domain classifier of masks: probabilities (n, classes, h, w) -> logits (n, 1, h/16, w/16)."""
    layers: list[nn.Module] = []
    for inputs, outputs in zip((classes, *CHANNELS), CHANNELS, strict=False):
        layers += [nn.Conv2d(inputs, outputs, 4, stride=2, padding=2), nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*layers, nn.Conv2d(CHANNELS[-1], 1, 4, stride=2, padding=2))


def learn(game: Game, pair: Pair) -> Losses:
    """Learn from one pair of batches.

    References:
        Tsai et al. 2018, arXiv:1802.10349, section 3 (single level), with a turned gradient in the place
        of alternating steps.
    """
    assert pair.target is not None
    source, target = game.see(pair), game.see(pair.target)
    task = game.task_loss(source, pair)
    masks = [probabilities(seen.logits, game.output) for seen in (source, target)]
    domain = tell_apart(*(game.critic(reverse_gradient(mask, game.trade)) for mask in masks))
    loss = game.descend(task + domain.loss)
    return {"loss": loss, "task": task.item(), "domain": domain.loss.item(), "accuracy": domain.accuracy}
