"""Learning from labels: the loss of the model's answers, and their scores on val."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from surgery.train.feed import Batch, Feed
from surgery.train.losses import Loss
from surgery.train.mixing import mix, mixed_loss
from surgery.train.rule import Judgement, Losses, Update
from surgery.train.validation import validate


@dataclass(frozen=True)
class Supervised:
    """The rule of `finetune`.

    Attributes:
        mixup, cutmix: Alphas of Mixup and CutMix (labels); 0 for none.
        seed: Of what is mixed with what.
        channels_last: The network's states are (n, h, w, c).
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    seed: int = 0
    channels_last: bool = False
    companion: None = None
    tap: None = None

    def learn(self, batch: Batch, update: Update) -> Losses:
        """See `Rule`."""
        if (self.mixup or self.cutmix) and len(batch.items) > 1:
            progress = update.progress
            seed = (self.seed, progress.epoch, progress.step, update.team.rank)
            mixed, others, kept = mix(batch, self.mixup, self.cutmix, seed, self.channels_last)
            logits = update.suffix(mixed.inputs, mixed.size)
            loss = mixed_loss(update.loss, logits, batch.targets, others, kept)
        else:
            loss = update.loss(update.suffix(batch.inputs, batch.size), batch.targets)
        return {"loss": update.descend(loss)}

    def judge(self, suffix: nn.Module, feed: Feed, loss: Loss, batch_size: int, epoch: int) -> Judgement:
        """See `Rule`: the best epoch has the highest main score on val."""
        scores, value = validate(suffix, feed, loss, batch_size)
        return Judgement(scores.main, value, scores.scores)
