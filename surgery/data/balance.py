"""Classes of unequal frequency: how much each counts in the loss, and which images are drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from surgery.data.loaders import iterate
from surgery.data.table import Item, Table
from surgery.data.targets import IGNORE, TargetSpec

LARGEST_WEIGHT = 20.0
"""A class counts at most this many times as much as it would without weights."""


def balanced_weights(
    table: Table, targets: TargetSpec, progress: Callable[[int, int], None] | None = None
) -> list[float]:
    """Return a weight for each class by its frequency in train, for `make_loss`.

    For softmax outputs n / (classes · n of the class), as in scikit-learn's `class_weight="balanced"`; for
    sigmoid outputs the absent over the present, one per logit. Neither passes `LARGEST_WEIGHT`; a class that
    never occurs counts as if it occurred once.

    Args:
        table: What is learnt; of masks every training mask is read.
        targets: Which classes.
        progress: Called with (masks read, masks in all).
    """
    output = targets.output
    counts, total = _count(table, targets, progress)
    present = np.maximum(counts, 1)
    if output.activation == "softmax":
        weights = total / (len(counts) * present)
    elif output.multilabel:
        weights = (total - counts) / present
    else:
        weights = counts[:1] / present[1:]
    return [float(weight) for weight in np.clip(weights, 1 / LARGEST_WEIGHT, LARGEST_WEIGHT)]


def draw_balanced(items: Sequence[Item], seed: int, epoch: int) -> list[int]:
    """Draw as many images as there are, with replacement, so that each class is drawn equally often.

    Of an image with several labels the rarest decides; those without a label are one class more.

    Args:
        items: Labelled images.
        seed: With `epoch`, decides the draw.
        epoch: Number of the epoch.

    Returns:
        Indices into `items`.
    """
    labels = Counter(label for item in items for label in item.labels or ())

    def kind(item: Item) -> int | None:
        if item.labels is None:
            return item.label
        return min(item.labels, key=lambda label: (labels[label], label), default=None)

    kinds = [kind(item) for item in items]
    counts = Counter(kinds)
    shares = np.array([1 / (len(counts) * counts[kind]) for kind in kinds])
    rng = np.random.default_rng([seed, epoch, 1])
    drawn: list[int] = rng.choice(len(items), len(items), p=shares / shares.sum()).tolist()
    return drawn


def class_frequencies(
    table: Table, targets: TargetSpec, progress: Callable[[int, int], None] | None = None
) -> NDArray[np.float64]:
    """Return how often each class is the truth in train, as shares of its images or pixels.

    Args:
        table: One label an image, or masks, each of which is read.
        targets: Which classes.
        progress: Called with (masks read, masks in all).

    Returns:
        One share a class, shape (k,), adding up to 1.
    """
    counts, total = _count(table, targets, progress)
    shares: NDArray[np.float64] = counts / max(1, total)
    return shares


def _count(
    table: Table, targets: TargetSpec, progress: Callable[[int, int], None] | None
) -> tuple[NDArray[np.int64], int]:
    """Return how often each class occurs in train, and how many images or pixels there are."""
    items, size = table.of("train"), len(targets.output.classes)
    counts = np.zeros(size, np.int64)
    if table.task == "classify":
        for item in items:
            counts[list(item.labels) if item.labels is not None else item.label] += 1
        return counts, len(items)

    def read(item: Item) -> NDArray[np.int64]:
        assert item.mask is not None
        target = targets.encode_mask(item.mask.read())
        found: NDArray[np.int64] = np.bincount(target.ravel(), minlength=IGNORE + 1)
        return found

    for done, loaded in enumerate(iterate(items, [[i] for i in range(len(items))], read)):
        counts += loaded[0][:size]
        if progress is not None:
            progress(done + 1, len(items))
    return counts, int(counts.sum())
