"""Whether images are drawn like those that a model was trained on: two tests, one false-alarm rate."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist
from scipy.stats import binomtest, mannwhitneyu

from surgery.artifact.errors import ConfigError
from surgery.artifact.novelty import Floats, Gauge

LEAST_PERMUTATIONS = 999
FAR = 0.95
"""Quantile of the distances of images held out, beyond which an image is counted as far."""
WIDTHS = (0.5, 1.0, 2.0)
"""Widths of the kernels, as shares of the median distance."""
FARTHEST = 1e30
"""Number that stands for larger ones in an embedding."""
AT_ONCE = 250
"""Permutations that are computed at once."""


@dataclass(frozen=True)
class Drift:
    """What the tests found."""

    images: int
    false_alarm_rate: float
    """Of both tests together."""
    distance_p: float
    """Probability of such distances, or larger ones, if there is no drift."""
    embedding_p: float
    """Probability of embeddings that differ so much if there is no drift."""
    beyond: float
    """Share of the images farther out than `FAR` of those held out; without drift it is about 1 - `FAR`."""
    interval: tuple[float, float]
    """Where that share lies with a probability of 95 %."""
    like: str
    """What the images were found nearest to: the training images or, of an adapted version, all those of both
    domains, the source's or the target's."""

    @property
    def found(self) -> bool:
        """Whether one of the tests rejects, each at half the false-alarm rate (Bonferroni)."""
        return min(self.distance_p, self.embedding_p) <= self.false_alarm_rate / 2


def check_rate(rate: float) -> None:
    """Refuse a false-alarm rate that the tests cannot keep, or that says nothing.

    Raises:
        ConfigError: Unless it lies in 0.001–0.5.
    """
    if not 0.001 <= rate <= 0.5:
        raise ConfigError(
            f"--false-alarm-rate is {rate:g}; it lies in 0.001–0.5",
            "With 0.05, the default, one in twenty folders without drift is called one.",
        )


def find_drift(gauge: Gauge, embeddings: Floats, false_alarm_rate: float, seed: int = 0) -> Drift:
    """Compare images with those that were held out of a model's training.

    A one-sided Mann-Whitney test asks whether they lie farther from the training images, and a permutation
    test of the maximum mean discrepancy whether they lie elsewhere. If they are drawn independently and
    like the images held out, drift is found with a probability of at most the false-alarm rate.

    An adapted version is at home in two domains, with images of either or of both mixed as they were held
    out. There is drift if there is from each of the three (an intersection-union test, which needs no
    correction: where one of them holds, it is rejected as rarely as that one; Berger 1982, Technometrics 24).

    Args:
        gauge: Of the version, for the graph that gave the embeddings.
        embeddings: Of the images, shape (n, d).
        false_alarm_rate: Of both tests together.
        seed: Of the permutations.

    References:
        Mann & Whitney 1947, Annals of Mathematical Statistics 18; Gretton et al. 2012, JMLR 13, sections 2
        and 8, for the discrepancy and the kernel's width.
    """
    compared = [
        _compare(name, gauge.gaussian.distances(embeddings), embeddings, known, false_alarm_rate, seed)
        for name, known in gauge.held_out.kinds().items()
    ]
    return max(compared, key=lambda each: min(each.distance_p, each.embedding_p))


def _compare(
    name: str,
    distances: Floats,
    embeddings: Floats,
    held_out: tuple[Floats, Floats],
    false_alarm_rate: float,
    seed: int,
) -> Drift:
    """Compare images with those held out of one kind."""
    known, reference = held_out
    far = int((distances > np.quantile(known, FAR)).sum())
    bounds = binomtest(far, len(distances)).proportion_ci(0.95, "wilson")
    return Drift(
        len(distances),
        false_alarm_rate,
        # Finite in place of infinite, since ranks are all that counts.
        float(mannwhitneyu(np.nan_to_num(distances), np.nan_to_num(known), alternative="greater").pvalue),
        discrepancy_p(reference, embeddings, false_alarm_rate, seed),
        far / len(distances),
        (float(bounds.low), float(bounds.high)),
        name,
    )


def discrepancy_p(one: Floats, other: Floats, false_alarm_rate: float, seed: int = 0) -> float:
    """Return the p-value of the maximum mean discrepancy between two sets of embeddings.

    Args:
        one: Shape (m, d).
        other: Shape (n, d).
        false_alarm_rate: There are enough permutations for p-values well below it.
        seed: Of the permutations.
    """
    # Differences and squares of what has no bounds would be no numbers.
    pooled = np.clip(np.nan_to_num(np.concatenate([one, other]).astype(np.float64)), -FARTHEST, FARTHEST)
    kernel = _kernel(pooled)
    permutations = max(LEAST_PERMUTATIONS, math.ceil(20 / false_alarm_rate) - 1)
    begun = np.arange(len(pooled)) < len(one)
    found = _discrepancies(kernel, begun[None])[0]
    rng = np.random.default_rng(seed)
    as_large = 0
    for start in range(0, permutations, AT_ONCE):
        sides = np.tile(begun, (min(AT_ONCE, permutations - start), 1))  # (b, m + n)
        drawn = _discrepancies(kernel, rng.permuted(sides, axis=1))
        # What differs by no more than rounding is a tie, and a tie speaks against drift.
        as_large += int((drawn >= found - 1e-12).sum())
    return (1 + as_large) / (permutations + 1)


def _kernel(pooled: Floats) -> Floats:
    """Return the sum of Gaussian kernels between all embeddings, shape (m + n, m + n), without a diagonal."""
    squares = cdist(pooled, pooled, "sqeuclidean")
    apart = squares[np.triu_indices(len(pooled), 1)]
    median = float(np.median(apart[apart > 0])) if (apart > 0).any() else 1.0
    kernel = sum(np.exp(-squares / (2 * width**2 * median)) for width in WIDTHS)
    found: Floats = np.asarray(kernel)
    np.fill_diagonal(found, 0)
    return found


def _discrepancies(kernel: Floats, sides: np.ndarray) -> Floats:
    """Return the unbiased squared discrepancy for each division of the embeddings into two, shape (b,).

    Args:
        kernel: Shape (m + n, m + n), without a diagonal.
        sides: True for those of the first set, shape (b, m + n).
    """
    first = sides.astype(np.float64)
    m, n = first[0].sum(), (1 - first[0]).sum()
    rows = first @ kernel  # (b, m + n) @ (m + n, m + n) -> (b, m + n)
    within = (rows * first).sum(1)
    across = rows.sum(1) - within
    rest = kernel.sum() - within - 2 * across
    found: Floats = within / max(m * (m - 1), 1) + rest / max(n * (n - 1), 1) - 2 * across / (m * n)
    return found
