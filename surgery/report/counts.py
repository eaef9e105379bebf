"""How much of each class each side of the split holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from surgery.data.loaders import iterate
from surgery.data.table import SPLITS, Item, Table
from surgery.data.targets import TargetSpec


@dataclass(frozen=True)
class ClassCounts:
    """What is there of each class, by split; splits without images are left out."""

    images: dict[str, int]
    """Images of each split."""
    with_class: dict[str, list[int]]
    """Images of each split that hold a class, in the order of the model's classes."""
    pixels: dict[str, list[int]]
    """segment: pixels of each split, in the same order; pixels that do not count are left out."""


def count_classes(table: Table, targets: TargetSpec, progress: Callable[[int, int], None]) -> ClassCounts:
    """Count images, and for masks pixels, of the classes that are learnt.

    Args:
        table: What was learnt from.
        targets: Which classes are learnt.
        progress: Called with (images done, images in all).
    """
    size = len(targets.output.classes)
    images: dict[str, int] = {split: len(table.of(split)) for split in SPLITS if table.of(split)}
    held = {split: np.zeros(size, np.int64) for split in images}
    pixels = {split: np.zeros(size, np.int64) for split in images}

    def count(item: Item) -> np.ndarray:
        if item.mask is None:
            truth = np.asarray(item.truth, int).ravel()  # () or (labels,) -> (labels,)
        else:
            truth = targets.encode_mask(item.mask.read(), str(item.mask.path)).ravel()  # (h, w) -> (h * w,)
        return np.bincount(truth, minlength=size)[:size]

    order = [[index] for index in range(len(table.items))]
    for index, found in enumerate(iterate(table.items, order, count)):
        split = table.items[index].split
        held[split] += found[0] > 0
        pixels[split] += found[0]
        progress(index + 1, len(table.items))
    masks = table.task == "segment"
    return ClassCounts(
        images,
        {split: row.tolist() for split, row in held.items()},
        {split: row.tolist() for split, row in pixels.items()} if masks else {},
    )
