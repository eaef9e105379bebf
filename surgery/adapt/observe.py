"""A model looks at the images of both domains that nobody trains on: what every criterion is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from surgery.adapt.seen import entropy, probabilities, to_positions, to_rows
from surgery.artifact.answer import answer_mask
from surgery.artifact.manifest import OutputSpec
from surgery.train.evaluate import Scores, make_scorer
from surgery.train.feed import Batch, Feed
from surgery.train.losses import Loss

PIXELS = 64
"""Pixels of a mask, evenly spread, whose probabilities are kept."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Observed:
    """What a model made of the images of one domain.

    Attributes:
        embeddings: Features of each image, (n, d): its row, or of masks the mean of its rows.
        shares: Probabilities of the classes, (m, k): of each image, or of some pixels of each mask.
        unsure: Mean entropy over all images or pixels, nats.
        frequencies: Mean probability of each class, (k,).
        losses: Of each image against its label, (n,); empty without labels.
        scores: Against the labels; None without.
        loss: Mean of `losses`; 0 without labels.
    """

    embeddings: Floats
    shares: Floats
    unsure: float
    frequencies: Floats
    losses: Floats
    scores: Scores | None
    loss: float


def observe(
    suffix: Callable[..., tuple[Tensor, Tensor]], feed: Feed, loss: Loss, batch_size: int
) -> Observed:
    """Run a tapped suffix on the val images of a feed, as the service would see them."""
    output = feed.targets.output
    labelled = any(item.truth is not None or item.mask is not None for item in feed.table.of("val"))
    scorer: Any = make_scorer(output)
    found = _Gathered(len(output.classes))
    with torch.inference_mode():
        for batch, truths in feed.validation(batch_size):
            logits, tapped = suffix(batch.inputs, batch.size)
            found.add(logits, tapped, output)
            if labelled:
                found.judge(batch, logits, loss, output)
                _score(scorer, batch, logits, truths, output)
    return found.finish(scorer.compute() if labelled else None)


def _score(scorer: Any, batch: Batch, logits: Tensor, truths: list[Any], output: OutputSpec) -> None:
    for item, truth, logit in zip(batch.items, truths, logits.float().cpu().numpy(), strict=True):
        if item.mask is None:
            scorer.update(logit, truth)
        else:
            scorer.update(answer_mask(logit, (truth.shape[1], truth.shape[0]), output), truth)


class _Gathered:
    """Sums and samples over the batches."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.embeddings: list[Floats] = []
        self.shares: list[Floats] = []
        self.losses: list[float] = []
        self.frequencies = np.zeros(classes, np.float64)
        self.unsure, self.counted = 0.0, 0

    def add(self, logits: Tensor, tapped: Tensor, output: OutputSpec) -> None:
        shares = probabilities(logits, output)
        rows = to_rows(tapped, logits.ndim == 4)
        if logits.ndim == 4:
            rows = rows.view(len(logits), -1, rows.shape[1]).mean(1)  # (n·h·w, d) -> (n, d)
            flat = to_positions(shares)  # (n·h·w, k)
            kept = flat[:: max(1, len(flat) // (PIXELS * len(logits)))]
        else:
            flat = kept = shares
        self.embeddings.append(rows.float().cpu().numpy())
        self.shares.append(kept.cpu().numpy())
        self.unsure += float(entropy(flat).sum())
        self.frequencies += flat.sum(0).double().cpu().numpy()
        self.counted += len(flat)

    def judge(self, batch: Batch, logits: Tensor, loss: Loss, output: OutputSpec) -> None:
        for k in range(len(batch.items)):
            self.losses.append(float(loss(logits[k : k + 1], batch.targets[k : k + 1])))

    def finish(self, scores: Scores | None) -> Observed:
        counted = max(1, self.counted)
        return Observed(
            embeddings=np.concatenate(self.embeddings),
            shares=np.concatenate(self.shares),
            unsure=self.unsure / counted,
            frequencies=(self.frequencies / counted).astype(np.float32),
            losses=np.array(self.losses, np.float32),
            scores=scores,
            loss=float(np.mean(self.losses)) if self.losses else 0.0,
        )
