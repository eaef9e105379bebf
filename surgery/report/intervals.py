"""How far scores would vary on other images of the same kind: bootstrap intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from surgery.train.evaluate import Scorer

RESAMPLES = 1000
COVERED = 0.95
"""Share of the resampled scores that lies inside an interval."""
SEED = 0
BLOCK = 50
"""Resamples that are scored at once."""


@dataclass(frozen=True)
class Interval:
    """Where a score lies in `COVERED` of the resamples."""

    low: float
    high: float


def bootstrap(scorer: Scorer, n: int, progress: Callable[[int, int], None]) -> dict[str, Interval]:
    """Return the percentile interval of each score; the same images give the same intervals.

    Args:
        scorer: Has counted the images.
        n: Images it has counted, one at least.
        progress: Called with (resamples done, resamples in all).

    References:
        Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapter 13.
    """
    tail = (1 - COVERED) / 2
    bounds = {
        name: np.quantile(values, [tail, 1 - tail])
        for name, values in resample(scorer, n, progress, SEED).items()
    }
    return {name: Interval(float(low), float(high)) for name, (low, high) in bounds.items()}


def resample(
    scorer: Scorer, n: int, progress: Callable[[int, int], None], seed: int
) -> dict[str, np.ndarray]:
    """Return each score of `RESAMPLES` draws of n images from those counted, with replacement."""
    rng = np.random.default_rng(seed)
    drawn: dict[str, list[np.ndarray]] = {}
    for done in range(0, RESAMPLES, BLOCK):
        picks = rng.integers(0, n, (BLOCK, n))
        weights = np.stack([np.bincount(row, minlength=n) for row in picks])
        for name, values in scorer.weighted(weights).items():
            drawn.setdefault(name, []).append(values)
        progress(done + BLOCK, RESAMPLES)
    return {name: np.concatenate(parts) for name, parts in drawn.items()}
