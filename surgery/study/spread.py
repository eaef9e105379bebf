"""Means over seeds with their intervals: what a handful of repeats can say, and what not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
MARGIN = 0.02
"""A loss of accuracy up to which a cheaper way may count as equal, beside not being seen to lose any; and
the gain up to which a dearer way is not worth it."""


@dataclass(frozen=True)
class Spread:
    """A mean over repeats and its interval.

    Attributes:
        mean: Of the repeats.
        half: Half the width of the 95 % interval; None where one repeat says nothing of it.
        n: Repeats.
    """

    mean: float
    half: float | None
    n: int

    @property
    def low(self) -> float:
        """Lower end; the mean where there is no interval."""
        return self.mean - (self.half or 0.0)

    @property
    def high(self) -> float:
        """Upper end; the mean where there is no interval."""
        return self.mean + (self.half or 0.0)

    @property
    def verdict(self) -> str:
        """`above`, `below`, or `open`: whether 0 lies outside the interval, and on which side."""
        if self.half is None or self.low <= 0 <= self.high:
            return "open"
        return "above" if self.mean > 0 else "below"

    @property
    def small(self) -> bool:
        """Read as an accuracy that is gained: whether it is seen to be none worth speaking of, or less."""
        return self.half is not None and self.high <= MARGIN

    @property
    def loss(self) -> str:
        """Read as an accuracy that is lost: `some`; `none` worth speaking of; `open` without evidence."""
        if self.verdict == "above":
            return "some"
        return "none" if self.half is not None and self.mean <= MARGIN else "open"

    def __str__(self) -> str:
        return f"{self.mean:.3f}" if self.half is None else f"{self.mean:.3f} ± {self.half:.3f}"


def spread(values: Sequence[float], reused: float = 0.0) -> Spread:
    """Return the mean of repeats and its t-interval.

    Args:
        values: One a repeat; of differences, paired by repeat.
        reused: Images judged over images trained on, where the repeats draw both from the same images:
            they are then less independent than they look, and the interval is wider for it.

    References:
        Student 1908; Nadeau & Bengio 2003, Machine Learning 52, eq. 9 (the corrected variance).
    """
    from scipy import stats

    found = np.asarray(values, float)
    n = len(found)
    if n < 2:
        return Spread(float(found.mean()) if n else float("nan"), None, n)
    variance = found.var(ddof=1) * (1 / n + reused)
    half = float(stats.t.ppf(0.5 + LEVEL / 2, n - 1) * np.sqrt(variance))
    return Spread(float(found.mean()), half, n)


def describe(found: Spread) -> dict[str, float | int | None]:
    """Return a spread as plain values."""
    return {"mean": found.mean, "half": found.half, "n": found.n}
