"""The generalisation gap: how much better a model does on what it was trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from surgery.artifact.manifest import Manifest
from surgery.artifact.session import Session
from surgery.data.table import Item
from surgery.data.targets import TargetSpec
from surgery.deliver.parity import spread
from surgery.deliver.scoring import Scored, score_graph
from surgery.report.intervals import COVERED, resample

MOST = {"classify": 512, "segment": 64}
"""Training images, evenly spread, that are scored at most."""


@dataclass(frozen=True)
class Gap:
    """R[f] − R_S[f]: the risk on the split asked for less that on train, where risk is 1 − score.

    Attributes:
        metric: The main score.
        value: The gap; above 0 the model does better on train.
        low, high: It lies between these in `covered` of the resamples of both sides.
        train: Score on train.
        images: Training images that were scored.
    """

    metric: str
    value: float
    low: float
    high: float
    train: float
    images: int
    covered: float = COVERED

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def describe(self) -> str:
        """Return it as one line for people."""
        return (
            f"{self.value:+.4f} ({self.low:+.4f} to {self.high:+.4f}): {self.metric} on "
            f"{self.images} images of train is {self.train:.4f}"
        )


def measure_gap(
    session: Session,
    manifest: Manifest,
    train: Sequence[Item],
    targets: TargetSpec,
    judged: Scored,
    progress: Callable[[int, int], None],
) -> Gap:
    """Score a bounded number of training images and return the gap to what was scored already.

    Args:
        session: The opened graph.
        manifest: What it takes and answers.
        train: The images that the model was trained on, one at least.
        targets: How their labels map to the graph's classes.
        judged: What the graph made of the split asked for.
        progress: Called with (images done, images in all).

    References:
        Neyshabur, Sedghi, Zhang 2020, arXiv:2008.11687, section 2 (risk and empirical risk); Efron &
        Tibshirani 1993, An Introduction to the Bootstrap, section 8.3 (two samples).
    """
    chosen = [train[i] for i in spread(len(train), MOST[manifest.task])]
    scored = score_graph(session, manifest, chosen, targets, progress)
    metric = judged.scores.metric
    drawn = [
        resample(each.scorer, each.scores.n, lambda done, total: None, seed)[metric]
        for seed, each in enumerate((scored, judged))
    ]
    tail = (1 - COVERED) / 2
    low, high = np.quantile(drawn[0] - drawn[1], [tail, 1 - tail])
    value = scored.scores.main - judged.scores.main
    return Gap(metric, value, float(low), float(high), scored.scores.main, len(chosen))
