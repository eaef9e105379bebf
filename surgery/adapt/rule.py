"""What a run of adaptation learns by, and what its epochs are judged by: never by labels of the target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from surgery.adapt.criteria import Evidence, measure
from surgery.adapt.game import Game
from surgery.adapt.methods import Method
from surgery.adapt.observe import Floats, observe
from surgery.adapt.pairs import Pair, PairedFeed
from surgery.artifact.manifest import OutputSpec
from surgery.train.losses import Loss
from surgery.train.rule import Judgement, Losses, Update


@dataclass(frozen=True)
class Adaptation:
    """The rule of `adapt` (see `train.rule.Rule`).

    Attributes:
        method: What each step does.
        output: What the logits mean.
        tap: Stage whose features the domains are compared by.
        companion: What learns beside the model.
        strength: How much the target counts in the end.
        confidence: Probability from which a pseudo-label counts.
        prior: How often each class is the truth in the source's training images.
        choose_by: The criterion that the best epoch has most of.
    """

    method: Method
    output: OutputSpec
    tap: int
    companion: nn.Module | None
    strength: float
    confidence: float
    prior: Floats
    choose_by: str

    def learn(self, batch: Pair, update: Update) -> Losses:
        """Learn from one pair of batches, as the method does."""
        game = Game(update, self.output, self.strength, self.confidence)
        return {**self.method.learn(game, batch), "trade": game.trade}

    def judge(
        self, suffix: nn.Module, feed: PairedFeed, loss: Loss, batch_size: int, epoch: int
    ) -> Judgement:
        """Measure all criteria. What the target's labels say, if there are any, is noted and not used."""
        source = observe(suffix, feed.source, loss, batch_size)
        target = observe(suffix, feed.target, loss, batch_size)
        found = measure(Evidence(source, target, self.prior))
        more: dict[str, Any] = {"criteria": found, "frequencies": target.frequencies.tolist()}
        said = {self.choose_by: found[self.choose_by]}
        if feed.labelled is not None:
            labelled = observe(suffix, feed.labelled, loss, batch_size).scores
            assert labelled is not None
            more["target"] = labelled.scores
            said["target (not used)"] = labelled.main
        assert source.scores is not None
        return Judgement(found[self.choose_by], source.loss, source.scores.scores, more, said)
