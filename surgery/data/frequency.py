"""How often each class occurs, and whether that is enough to learn it and to score it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from surgery.data.table import SPLITS, Item, Problem, Table
from surgery.data.targets import TargetSpec

FEW_IMAGES = 10
"""A class with fewer images in train is hard to learn."""
FEW_PIXELS = 0.001
"""A class with a smaller share of train's pixels hardly counts in the loss."""
LARGEST_RATIO = {"images": 10, "pixels": 100}
"""The largest class of train may have so many times as much as the smallest before it is told."""
NAMED = 8
"""Classes that a warning names."""

Pixels = Mapping[Path, NDArray[np.int64]]
"""Pixels of each mask value, by image."""


@dataclass(frozen=True)
class Frequencies:
    """How much each split holds of each class, by index into the table's classes."""

    images: dict[str, list[int]]
    """Images that hold the class, by split."""
    pixels: dict[str, list[int]]
    """Pixels of the class, by split; empty for labels."""
    unlisted: dict[int, dict[str, int]]
    """Pixels of mask values that the list of classes does not name, by value and split."""

    @property
    def amounts(self) -> dict[str, list[int]]:
        """What classes are compared by: pixels, or for labels images."""
        return self.pixels or self.images


def count_frequencies(table: Table, items: Sequence[Item], pixels: Pixels) -> Frequencies:
    """Count the classes of the items; a mask that could not be read counts nothing.

    Args:
        table: The dataset.
        items: Those of its images that take part.
        pixels: What the masks hold.
    """
    size = len(table.classes)
    images = {split: np.zeros(size, np.int64) for split in SPLITS}
    areas = {split: np.zeros(size, np.int64) for split in SPLITS}
    unlisted: dict[int, dict[str, int]] = defaultdict(lambda: dict.fromkeys(SPLITS, 0))
    for item in items:
        if item.label is not None:
            images[item.split][item.label] += 1
        elif item.labels is not None:
            images[item.split][list(item.labels)] += 1
        elif item.image in pixels:
            found = pixels[item.image]
            images[item.split] += found[:size] > 0
            areas[item.split] += found[:size]
            for value in np.flatnonzero(found[size:]) + size:
                unlisted[int(value)][item.split] += int(found[value])
    return Frequencies(
        {split: counts.tolist() for split, counts in images.items()},
        {split: counts.tolist() for split, counts in areas.items()} if table.task == "segment" else {},
        dict(sorted(unlisted.items())),
    )


def find_empty(
    table: Table, target: TargetSpec | None, items: Sequence[Item], frequencies: Frequencies
) -> tuple[list[Problem], list[Problem]]:
    """Return (what cannot be learnt at all, what can hardly be learnt or not be scored)."""
    empty: list[Problem] = []
    thin: list[Problem] = []
    for split in ("train", "val"):
        if not any(item.split == split for item in items):
            empty.append(Problem("empty split", table.root, f"no image is left in {split}"))
    counts, unit = frequencies.amounts, unit_of(table)
    for index in learnt_classes(table, target, with_rest=True):
        name = table.classes[index]
        chosen = target is not None and name in target.output.classes and target.output.rest
        if counts["train"][index] == 0:
            like = "" if counts["val"][index] == 0 else f", {counts['val'][index]} in val"
            problem = Problem("empty class", table.root, f"{name!r} has no {unit} in train{like}")
            # A mask class that never occurs is harmless, unless it is what shall be learnt.
            (empty if table.task == "classify" or chosen else thin).append(problem)
        elif counts["val"][index] == 0 and (table.task == "classify" or chosen):
            message = f"{name!r} has no {unit} in val, so it has no score"
            thin.append(Problem("class without score", table.root, message))
    return empty + ([] if empty else _find_single(table, target, frequencies)), thin


def _find_single(table: Table, target: TargetSpec | None, frequencies: Frequencies) -> list[Problem]:
    """Return a problem if all that counts in the masks of train is of one class."""
    amounts = {name: n for name, n in _train_amounts(table, target, frequencies).items() if n}
    if table.task != "segment" or len(amounts) != 1:
        return []
    message = f"every pixel of train that counts is {next(iter(amounts))!r}; two classes or more are needed"
    return [Problem("single class", table.root, message)]


def find_rare(table: Table, target: TargetSpec | None, frequencies: Frequencies) -> dict[int, str]:
    """Return the classes of which train holds very little, and how little: "3 images", "0.02 % of pixels"."""
    rare: dict[int, str] = {}
    total = max(1, sum(_train_amounts(table, target, frequencies).values()))
    for index in learnt_classes(table, target):
        images = frequencies.images["train"][index]
        share = frequencies.pixels["train"][index] / total if frequencies.pixels else 1.0
        if 0 < images < FEW_IMAGES:
            rare[index] = f"{images} image{'s' if images > 1 else ''}"
        elif images and share < FEW_PIXELS:
            rare[index] = f"{share:.2g} of pixels" if share < 1e-6 else f"{share:.2%} of pixels"
    return rare


def warn_of_balance(
    table: Table, target: TargetSpec | None, frequencies: Frequencies, rare: Mapping[int, str]
) -> list[Problem]:
    """Return a warning for all rare classes together, and one if the classes are very unequal."""
    found = []
    if rare:
        bound = f"fewer than {FEW_IMAGES} images"
        if frequencies.pixels:
            bound += f" or less than {FEW_PIXELS:.1%} of pixels"
        named = [f"{table.classes[index]!r} ({held})" for index, held in rare.items()]
        more = f" and {len(named) - NAMED} more" if len(named) > NAMED else ""
        message = f"train holds {bound} of {', '.join(named[:NAMED])}{more}"
        found.append(Problem("rare class", table.root, message))
    ratio = imbalance(table, target, frequencies)
    if ratio is not None and ratio[0] > LARGEST_RATIO[unit_of(table)]:
        times, largest, smallest = ratio
        options = "" if table.task == "segment" else "--sampler balanced or "
        message = (
            f"{largest!r} has {times:,.0f} times the {unit_of(table)} of {smallest!r} in train; "
            f"{options}--class-weights balanced makes up for it"
        )
        found.append(Problem("imbalance", table.root, message))
    return found


def imbalance(
    table: Table, target: TargetSpec | None, frequencies: Frequencies
) -> tuple[float, str, str] | None:
    """Return how many times as much train holds of the largest class as of the smallest, and both names.

    Classes that never occur are passed over: they are told by themselves. None where fewer than two occur.
    """
    amounts = {name: n for name, n in _train_amounts(table, target, frequencies).items() if n}
    if len(amounts) < 2:
        return None
    largest, smallest = (
        max(amounts, key=lambda name: amounts[name]),
        min(amounts, key=lambda name: amounts[name]),
    )
    return amounts[largest] / amounts[smallest], largest, smallest


def learnt_classes(table: Table, target: TargetSpec | None, with_rest: bool = False) -> list[int]:
    """Return the indices of the table's classes that are learnt; those that are the rest only if asked."""
    if target is None:
        return list(range(len(table.classes)))
    return [
        index
        for index, learnt in enumerate(target.indices)
        if learnt is not None and (with_rest or target.output.classes[learnt] != target.output.rest)
    ]


def unit_of(table: Table) -> str:
    """Return what the classes of a table are counted in."""
    return "images" if table.task == "classify" else "pixels"


def _train_amounts(table: Table, target: TargetSpec | None, frequencies: Frequencies) -> dict[str, int]:
    """Return images or pixels of train by the class that is learnt, the rest as one."""
    amounts: dict[str, int] = defaultdict(int)
    for index in learnt_classes(table, target, with_rest=True):
        learnt = target.indices[index] if target else None
        name = table.classes[index] if target is None or learnt is None else target.output.classes[learnt]
        amounts[name] += frequencies.amounts["train"][index]
    return amounts
