"""The constructive theorem: a two-layer ReLU network of 2n + d weights that fits any labels of n points.

References:
    Zhang et al. 2017, arXiv:1611.03530, theorem 1 and appendix C.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from surgery.artifact.errors import DataError

Floats = NDArray[np.float64]
TRIES = 64
"""Random directions of which the one that parts the points best is taken."""


@dataclass(frozen=True)
class TwoLayers:
    """f(x) = Σⱼ wⱼ · max(⟨a, x⟩ − bⱼ, 0), j = 1 … n.

    Attributes:
        direction: a, shape (d,).
        biases: b, shape (n,), rising.
        weights: w, shape (n,).
    """

    direction: Floats
    biases: Floats
    weights: Floats

    @property
    def size(self) -> int:
        """Number of weights: 2n + d."""
        return self.direction.size + self.biases.size + self.weights.size

    def __call__(self, points: Floats) -> Floats:
        """Map points (m, d) to values (m,)."""
        line = _project(points, self.direction)
        hidden = np.maximum(line[:, None] - self.biases, 0.0)  # (m, n)
        return hidden @ self.weights


def build_two_layers(points: Floats, labels: Floats, seed: int = 0) -> TwoLayers:
    """Build the network that gives each point its label; nothing is trained.

    Projected on the direction the points lie apart on a line. With a bias just before each of them, the
    matrix of hidden units by points is lower triangular, and forward substitution solves for the weights.

    Args:
        points: Shape (n, d), all different.
        labels: Shape (n,), any real numbers.
        seed: Of the direction.

    Raises:
        DataError: If two points are the same.
    """
    points, labels = np.asarray(points, np.float64), np.asarray(labels, np.float64)
    direction = _choose_direction(points, seed)
    line = _project(points, direction)
    order = np.argsort(line)
    places, wanted = line[order], labels[order]
    gaps = np.diff(places)
    if (gaps <= 0).any():
        k = int(np.argmin(gaps))
        raise DataError(
            f"points {order[k]} and {order[k + 1]} are the same, so no function can tell them apart",
            "Leave out copies.",
        )
    # bⱼ = zⱼ₋₁, the least that Zhang's b₁ < z₁ < b₂ < z₂ … comes down to; b₁ lies before all of them.
    step = float(gaps.mean()) if gaps.size else 1.0
    biases = np.concatenate([[places[0] - step], places[:-1]])
    slopes = np.diff(wanted, prepend=0.0) / (places - biases)
    weights = np.diff(slopes, prepend=0.0)  # forward substitution in this matrix: the changes of slope
    return TwoLayers(direction, biases, weights)


def _choose_direction(points: Floats, seed: int) -> Floats:
    """Return the direction, of unit length, on which the nearest two points are farthest apart."""
    directions = np.random.default_rng([seed, 1611]).standard_normal((TRIES, points.shape[1]))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    lines = np.sort(points @ directions.T, axis=0)  # (n, tries)
    nearest = np.diff(lines, axis=0).min(0) if len(points) > 1 else np.zeros(TRIES)
    best: Floats = directions[int(nearest.argmax())]
    return best


def _project(points: Floats, direction: Floats) -> Floats:
    """Return ⟨a, x⟩ of each point, summed in the same order however many there are: (m, d) -> (m,)."""
    line: Floats = (np.asarray(points, np.float64) * direction).sum(1)
    return line
