"""What one image and its mask show when they are decoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from surgery.artifact.errors import SurgeryError
from surgery.artifact.image import read_image
from surgery.data.hashing import hash_file
from surgery.data.masks import flatten_mask
from surgery.data.similar import Look, look_at
from surgery.data.table import Item, Problem, Table
from surgery.data.targets import TargetSpec, shorten


@dataclass
class Facts:
    """What one image and its mask showed."""

    item: Item
    size: tuple[int, int] | None = None
    content: str = ""
    look: Look | None = None
    pixels: NDArray[np.int64] | None = None
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)


def inspect_item(item: Item, table: Table, target: TargetSpec | None) -> Facts:
    """Decode an image and its mask; what is wrong with them goes into the facts.

    Args:
        item: Of the table.
        table: Says which mask values have a name.
        target: Says which of them count; None for all.
    """
    facts = Facts(item)
    try:
        image = read_image(item.image)
        height, width = image.shape[:2]
        facts.content = hash_file(item.image)
        facts.look = look_at(item.image, image)
        facts.size = (width, height)
    except (SurgeryError, OSError) as error:
        facts.problems.append(Problem("unreadable image", item.image, _reason(item.image, error)))
    if table.task == "segment":
        _inspect_mask(facts, table, target)
    return facts


def _inspect_mask(facts: Facts, table: Table, target: TargetSpec | None) -> None:
    item = facts.item
    if item.mask is None:
        message = f"no mask has its name in {item.split or 'the data'}"
        facts.problems.append(Problem("mask missing", item.image, message))
        return
    try:
        mask = flatten_mask(item.mask.read())
    except (SurgeryError, OSError) as error:
        facts.problems.append(Problem("unreadable mask", item.mask.path, _reason(item.mask.path, error)))
        return
    facts.pixels = np.bincount(mask.ravel(), minlength=len(table.classes))
    ignored = target.ignored_values if target else table.ignored_values
    used = np.flatnonzero(facts.pixels)
    unnamed = [int(v) for v in used if v >= len(table.classes) and v not in ignored]
    if unnamed:
        message = f"values {shorten(unnamed)} have no class; 0–{len(table.classes) - 1} have"
        facts.problems.append(Problem("unnamed values", item.mask.path, message))
    if not unnamed and not _counts(facts.pixels, target, ignored):
        message = "every pixel is left out, so nothing is learnt from it"
        facts.warnings.append(Problem("nothing labelled", item.mask.path, message))
    if facts.size is None:
        return
    size = (mask.shape[1], mask.shape[0])
    turn = _exif_turn(item.image)
    turned = ", turned as its EXIF tag says" if turn != 1 else ""
    if size != facts.size:
        message = f"is {_times(size)}, its image {item.image.name} is {_times(facts.size)}{turned}"
        facts.problems.append(Problem("mask of another size", item.mask.path, message))
    elif turned and _exif_turn(item.mask.path) == 1:
        message = f"is turned by its EXIF tag ({turn}); its mask is taken as it is"
        facts.warnings.append(Problem("turned image", item.image, message))


def _counts(pixels: NDArray[np.int64], target: TargetSpec | None, ignored: Sequence[int]) -> bool:
    """Tell whether a mask holds a pixel that loss and metrics look at."""
    left_out = {i for i, index in enumerate(target.indices) if index is None} if target else set()
    return any(int(value) not in {*left_out, *ignored} for value in np.flatnonzero(pixels))


def _exif_turn(path: Path) -> int:
    """Return the EXIF orientation of an image that can be read; 1 is upright."""
    try:
        with Image.open(path) as image:
            return int(image.getexif().get(0x0112, 1))
    except Exception:  # damaged metadata turns nothing, as in artifact.image
        return 1


def _reason(path: Path, error: Exception) -> str:
    text = error.message if isinstance(error, SurgeryError) else str(error)
    return text.removeprefix("mask ").removeprefix(f"{path}: ")


def _times(size: tuple[int, int]) -> str:
    return f"{size[0]}×{size[1]}"
