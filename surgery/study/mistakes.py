"""Common and unique mistakes of two models."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from sklearn.metrics import cohen_kappa_score

from surgery.study.measure import Flags


@dataclass(frozen=True)
class Mistakes:
    """How often two models are right and wrong together.

    Attributes:
        unit: What is counted: images, labels or pixels.
        neither, first, second, both: How many are answered wrongly by neither, by one alone, by both.
        kappa: Cohen's kappa of being wrong: 1 where they err on the same, 0 where no more often than
            by chance. Where both never err, or always, they agree on everything: 1.
    """

    unit: str
    neither: int
    first: int
    second: int
    both: int
    kappa: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def compare_mistakes(first: Flags, second: Flags, unit: str) -> Mistakes:
    """Compare which answers are right.

    Args:
        first, second: Whether each answer is right, shape (n,), in the same order.
        unit: What is counted.

    References:
        Cohen 1960, Educational and Psychological Measurement 20; Neyshabur, Sedghi, Zhang 2020,
        arXiv:2008.11687, section 3.2 (common and uncommon mistakes).
    """
    table = np.bincount(2 * ~first + ~second, minlength=4)
    neither, only_second, only_first, both = (int(count) for count in table)
    # Four kinds of answers with their counts: masks have tens of millions of pixels.
    if neither in (0, len(first)) and not only_first and not only_second:
        kappa = 1.0
    else:
        kappa = float(cohen_kappa_score([0, 0, 1, 1], [0, 1, 0, 1], sample_weight=table))
    return Mistakes(unit, neither, only_first, only_second, both, kappa)
