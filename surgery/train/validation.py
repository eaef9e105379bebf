"""How good a model is on val, by the answers that the service would give."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from surgery.artifact.answer import answer_mask
from surgery.train.evaluate import Scores, make_scorer
from surgery.train.feed import Feed
from surgery.train.losses import Loss


def validate(suffix: nn.Module, feed: Feed, loss: Loss, batch_size: int) -> tuple[Scores, float]:
    """Return the scores and the mean loss on val, by the answers the service would give."""
    suffix.eval()
    output = feed.targets.output
    scorer: Any = make_scorer(output)
    total, count = 0.0, 0
    with torch.inference_mode():
        for batch, truths in feed.validation(batch_size):
            logits = suffix(batch.inputs, batch.size)
            total += float(loss(logits, batch.targets)) * len(batch.items)
            count += len(batch.items)
            for truth, logit in zip(truths, logits.float().cpu().numpy(), strict=True):
                if batch.items[0].mask is None:
                    scorer.update(logit, truth)
                    continue
                size = (truth.shape[1], truth.shape[0])
                scorer.update(answer_mask(logit, size, output), truth)
    return scorer.compute(), total / max(1, count)
