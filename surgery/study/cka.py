"""Linear CKA: how alike two networks see the same images, whatever the basis of their features."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from surgery.artifact.errors import ConfigError

FEWEST = 4
"""Images that a minibatch holds at least: the unbiased estimator divides by n - 3."""

Features = NDArray[np.floating]


@dataclass
class LinearCKA:
    """Linear CKA of two sets of features, added up over minibatches of the same images.

    The mean over minibatches of the unbiased HSIC converges to the value of all images at once, whatever
    the size of the batches, and needs no matrix larger than one batch.

    References:
        Kornblith et al. 2019, arXiv:1905.00414, section 3 (CKA); Song et al. 2012, JMLR 13, eq. 5 (the
        unbiased HSIC); Nguyen, Raghu, Kornblith 2021, arXiv:2010.15327, eq. 3 (minibatches).
    """

    images: int = 0
    """Images counted so far."""
    _both: float = 0.0
    _first: float = 0.0
    _second: float = 0.0
    _batches: int = 0

    def add(self, x: Features, y: Features) -> None:
        """Count a minibatch.

        Args:
            x: Features of n images, shape (n, p); a map is flattened by the caller.
            y: Features of the same images in the same order, shape (n, q).

        Raises:
            ConfigError: If the row counts differ or n < 4.
        """
        both, first, second = hsic_triple(x, y)
        self._both += both
        self._first += first
        self._second += second
        self._batches += 1
        self.images += len(x)

    @property
    def value(self) -> float:
        """Similarity in [-1, 1]: 1 for the same features up to rotation, shift and scale, about 0 for
        unrelated ones. Features that do not vary at all are like others that do not, and unlike all else.

        Raises:
            ConfigError: If no minibatch was counted.
        """
        if not self._batches:
            raise ConfigError(
                f"CKA needs a minibatch of {FEWEST} images at least; there is none", "Give more images."
            )
        if self._first <= 0 or self._second <= 0:
            return 1.0 if self._first <= 0 and self._second <= 0 else 0.0
        # The root of the product, not the product of the roots: of x against itself it is exact.
        return min(1.0, max(-1.0, self._both / math.sqrt(self._first * self._second)))


def linear_cka(x: Features, y: Features) -> float:
    """Return linear CKA of all images at once; see `LinearCKA`.

    Args:
        x: Features of n images, shape (n, p).
        y: Features of the same images in the same order, shape (n, q).

    Raises:
        ConfigError: If the row counts differ or n < 4.
    """
    whole = LinearCKA()
    whole.add(x, y)
    return whole.value


def hsic_triple(x: Features, y: Features) -> tuple[float, float, float]:
    """Return the unbiased HSIC of x with y, of x with itself and of y with itself, by linear kernels.

    Args:
        x: Features of n images, shape (n, p).
        y: Features of the same images in the same order, shape (n, q).

    Returns:
        Three numbers; the last two are never below 0, but for rounding.

    Raises:
        ConfigError: If the row counts differ or n < 4.

    References:
        Song et al. 2012, JMLR 13, eq. 5.
    """
    n, p, q = len(x), x.shape[1], y.shape[1]
    if n != len(y):
        raise ConfigError(
            f"CKA of {n} rows with {len(y)}; they must be the same images",
            "Give both networks the same images in the same order.",
        )
    if n < FEWEST:
        raise ConfigError(
            f"CKA of a minibatch of {n} images; its estimator needs {FEWEST} at least",
            "Give more images, or larger batches.",
        )
    # The unbiased estimator ignores the mean; without it large features lose fewer digits.
    x, y = (each - each.mean(0) for each in (x.astype(np.float64), y.astype(np.float64)))
    if n * n * (p + q) > n * (p * p + q * q + p * q):
        return _of_features(x, y), _of_features(x, x), _of_features(y, y)
    first, second = _gram(x), _gram(y)
    return _of_grams(first, second), _of_grams(first, first), _of_grams(second, second)


def _gram(x: Features) -> Features:
    """Return the inner products of all pairs of rows, (n, n), with 0 on the diagonal."""
    gram: Features = x @ x.T
    np.fill_diagonal(gram, 0.0)
    return gram


def _of_grams(first: Features, second: Features) -> float:
    """Return the HSIC of two Gram matrices without a diagonal, (n, n) each: O(n²)."""
    rows, others = first.sum(1), second.sum(1)
    return _estimate(float((first * second).sum()), rows, others)


def _of_features(x: Features, y: Features) -> float:
    """Return the same from the features, (n, p) and (n, q), without a matrix of n by n: O(npq)."""
    own, other = (x * x).sum(1), (y * y).sum(1)
    trace = float(((x.T @ y) ** 2).sum() - (own * other).sum())
    return _estimate(trace, x @ x.sum(0) - own, y @ y.sum(0) - other)


def _estimate(trace: float, rows: Features, others: Features) -> float:
    """Return eq. 5 of Song et al. from tr(KL) and the row sums of K and L, (n,) each."""
    n = len(rows)
    shift = float(rows.sum() * others.sum()) / ((n - 1) * (n - 2))
    cross = 2 * float(rows @ others) / (n - 2)
    return (trace + shift - cross) / (n * (n - 3))
