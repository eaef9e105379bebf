"""How unlike the training images an image is: a distance of embeddings, and how rare that distance is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from surgery.artifact.errors import StoreError

NOVELTY_FILE = "novelty.npz"
"""In a version's folder: a Gaussian of its training embeddings, and of each graph what images that it was not
fitted on look like to it: those of val and, of an adapted version, some of the domain that it was adapted to,
which the network has seen without labels."""

Floats = NDArray[np.floating[Any]]

_GAUSSIAN = ("mean", "axes", "weights", "remainder")
_CALIBRATION, _REFERENCE = "calibration.", "reference."
_FAR_TARGETS, _KEPT_TARGETS = "calibration_target.", "reference_target."
LEAST_OF_A_KIND = 10
"""Images held out of one domain from which a test of drift compares with them alone."""
LEAST_USUAL = 20
"""Images held out of one domain from which they say alone what is usual there: with fewer no image would be
novel at 0.05."""
_DAMAGED = "Restore the version from a copy, or remove it (`surgery models remove NAME VERSION`)."


@dataclass(frozen=True, eq=False)
class Gaussian:
    """Mean and covariance of embeddings of length 1, the latter along the axes in which they differ.

    In all other directions it has one variance, as a shrunk covariance does, so this is exact.
    """

    mean: Floats
    """Shape (d,)."""
    axes: Floats
    """Orthonormal rows, shape (k, d)."""
    weights: Floats
    """1 / variance along each axis, shape (k,)."""
    remainder: float
    """1 / variance in every direction that is orthogonal to the axes."""

    def distances(self, embeddings: Floats) -> NDArray[np.float64]:
        """Return the Mahalanobis distance of each embedding's direction; infinite where it has none.

        Args:
            embeddings: Shape (n, d).

        Returns:
            Shape (n,), in standard deviations.

        Raises:
            StoreError: If embeddings have another length than these.

        References:
            Lee et al. 2018, arXiv:1807.03888, section 2.1; Müller & Hein 2025,
            arXiv:2505.18032, for the length of 1.
        """
        if embeddings.shape[1:] != self.mean.shape:
            raise StoreError(
                f"embeddings have {embeddings.shape[1:]} numbers, {NOVELTY_FILE} is of {self.mean.shape}",
                "Export the model again: graph and statistics do not belong together.",
            )
        with np.errstate(all="ignore"):  # of numbers without bounds: their distance is infinite
            centred = to_directions(embeddings) - self.mean
            along = (centred @ self.axes.T).astype(np.float64)  # (n, d) @ (d, k) -> (n, k)
            all_of_it = np.square(centred, dtype=np.float64).sum(1)
            other = np.maximum(all_of_it - np.square(along).sum(1), 0)
            squares = np.square(along) @ self.weights + other * self.remainder
            found: NDArray[np.float64] = np.sqrt(np.where(np.isfinite(squares), squares, np.inf))
        return found


def to_directions(embeddings: Floats) -> NDArray[np.float32]:
    """Return embeddings scaled to length 1, shape (n, d); one of length 0 stays as it is.

    The length of an embedding says how much a network found, not what: that of an image which shows it next
    to nothing lies near the middle of all others, and would be the most usual one.
    """
    lengths = np.linalg.norm(embeddings.astype(np.float64), axis=1, keepdims=True)
    found: NDArray[np.float32] = (embeddings / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    return found


@dataclass(frozen=True, eq=False)
class HeldOut:
    """What a graph makes of images that nothing was fitted on."""

    calibration: NDArray[np.float64]
    """Their distances, rising, shape (m,)."""
    reference: Floats
    """Embeddings of some of them, shape (r, d)."""
    calibration_target: NDArray[np.bool_] | None = None
    """Of each distance, whether its image is of the domain that the model was adapted to; None if to none."""
    reference_target: NDArray[np.bool_] | None = None
    """The same of each embedding."""

    @cached_property
    def usual(self) -> list[NDArray[np.float64]]:
        """The distances, rising, of all images and, of two domains, of each by itself."""
        far = self.calibration_target
        sides = [] if far is None else [~far, far]
        return [self.calibration, *(self.calibration[each] for each in sides if each.sum() >= LEAST_USUAL)]

    def kinds(self) -> dict[str, tuple[NDArray[np.float64], Floats]]:
        """Return distances and embeddings of all images and, of two domains, of each by itself."""
        found = {"training images": (self.calibration, self.reference)}
        far, kept = self.calibration_target, self.reference_target
        if far is None or kept is None:
            return found
        for name, distant, near in (("source", ~far, ~kept), ("target", far, kept)):
            if min(distant.sum(), near.sum()) >= LEAST_OF_A_KIND:
                found[name] = (self.calibration[distant], self.reference[near])
        return found


@dataclass(frozen=True, eq=False)
class Gauge:
    """Tells how unlike the training images an image is, for one graph of a version."""

    gaussian: Gaussian
    held_out: HeldOut

    def novelty(self, embedding: Floats) -> float:
        """Return the probability that an image of the training's kind lies as far out as this one.

        It is the conformal p-value: at most a share p of such images has a novelty of p or less, whatever
        their distribution is, as long as the images held out are drawn like them and none of both was learnt
        from. Small is novel. Of an adapted version it is that of the domain in which the image is more usual,
        which keeps the share in either of them.

        Args:
            embedding: Of the image, shape (d,).

        Returns:
            In [1 / (m + 1), 1], where m images were held out.

        References:
            Vovk et al. 2005, Algorithmic Learning in a Random World, section 2.2; Bates et al. 2023,
            arXiv:2104.08279, section 2.1.
        """
        distance = self.gaussian.distances(embedding[None])[0]
        return max(_tail(known, distance) for known in self.held_out.usual)


def _tail(known: NDArray[np.float64], distance: float) -> float:
    """Return the share of distances, rising, that are at least as large, the one asked for among them."""
    as_far = len(known) - int(np.searchsorted(known, distance, "left"))
    return (1 + as_far) / (len(known) + 1)


def write_novelty(folder: Path, gaussian: Gaussian, held_out: Mapping[str, HeldOut]) -> None:
    """Write the file of a version.

    Args:
        folder: The version's folder.
        gaussian: Of its training embeddings.
        held_out: What images held out look like to the graph of each precision.
    """
    arrays: dict[str, Any] = {
        "mean": gaussian.mean.astype(np.float32),
        "axes": gaussian.axes.astype(np.float32),
        "weights": gaussian.weights.astype(np.float64),
        "remainder": np.float64(gaussian.remainder),
    }
    for precision, known in held_out.items():
        arrays[_CALIBRATION + precision] = known.calibration.astype(np.float64)
        arrays[_REFERENCE + precision] = known.reference.astype(np.float32)
        if known.calibration_target is not None and known.reference_target is not None:
            arrays[_FAR_TARGETS + precision] = known.calibration_target
            arrays[_KEPT_TARGETS + precision] = known.reference_target
    np.savez(folder / NOVELTY_FILE, **arrays)


def read_novelty(folder: Path) -> tuple[Gaussian, dict[str, HeldOut]] | None:
    """Return what `write_novelty` wrote; None where a version has none, as those of early programs.

    Raises:
        StoreError: If the file is damaged.
    """
    path = folder / NOVELTY_FILE
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as held:
            arrays = {name: held[name] for name in held.files}
        mean, axes, weights, remainder = (arrays[name] for name in _GAUSSIAN)
        gaussian = Gaussian(mean, axes, weights, float(remainder))
        precisions = [name.removeprefix(_CALIBRATION) for name in arrays if name.startswith(_CALIBRATION)]
        held_out = {
            name: HeldOut(
                arrays[_CALIBRATION + name],
                arrays[_REFERENCE + name],
                arrays.get(_FAR_TARGETS + name),
                arrays.get(_KEPT_TARGETS + name),
            )
            for name in precisions
        }
    except Exception as error:  # numpy and zipfile raise what they like on files that are damaged
        raise StoreError(f"{path}: damaged ({error})", _DAMAGED) from error
    problem = _problem(gaussian, held_out)
    if problem:
        raise StoreError(f"{path}: {problem}", _DAMAGED)
    return gaussian, held_out


def read_gauge(folder: Path, precision: str) -> Gauge | None:
    """Return what tells the novelty of images for a version's graph of a precision; None if it has none.

    Raises:
        StoreError: If the file is damaged.
    """
    found = read_novelty(folder)
    if found is None or precision not in found[1]:
        return None
    return Gauge(found[0], found[1][precision])


def _problem(gaussian: Gaussian, held_out: Mapping[str, HeldOut]) -> str:
    """Return what is wrong with the arrays, or nothing."""
    mean, axes, weights = gaussian.mean, gaussian.axes, gaussian.weights
    if mean.ndim != 1 or axes.ndim != 2 or axes.shape[1:] != mean.shape or weights.shape != axes.shape[:1]:
        return f"mean {mean.shape}, axes {axes.shape} and weights {weights.shape} do not fit one another"
    numbers = (mean, axes, weights, np.asarray(gaussian.remainder))
    if not all(np.issubdtype(each.dtype, np.floating) and np.isfinite(each).all() for each in numbers):
        return "holds what is no finite number"
    if (weights < 0).any() or gaussian.remainder < 0:
        return "holds a variance below 0"
    for precision, known in held_out.items():
        calibration, reference = known.calibration, known.reference
        if calibration.ndim != 1 or not len(calibration) or reference.shape[1:] != mean.shape:
            return (
                f"calibration {calibration.shape} and reference {reference.shape} of {precision} do not fit"
            )
        if not all(np.issubdtype(each.dtype, np.floating) for each in (calibration, reference)):
            return f"calibration and reference of {precision} are no floating-point numbers"
        # A distance may be infinite; what is no number at all is never equal to itself.
        if not np.array_equal(np.sort(calibration), calibration) or calibration[0] < 0:
            return f"the distances of {precision} do not rise from 0"
        for of, marks in ((calibration, known.calibration_target), (reference, known.reference_target)):
            if marks is not None and (marks.dtype != np.bool_ or marks.shape != of.shape[:1]):
                return f"the domains of what was held out for {precision} do not fit"
    return ""
