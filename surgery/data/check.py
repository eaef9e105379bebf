"""Check a dataset: every file is decoded once, and every problem goes into one report."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from surgery.artifact.errors import DataError, SurgeryError
from surgery.artifact.image import read_image
from surgery.data.hashing import hash_file
from surgery.data.loaders import iterate
from surgery.data.masks import flatten_mask
from surgery.data.report import Report, group_lines
from surgery.data.similar import Look, group_similar, look_at
from surgery.data.table import SPLITS, Item, Problem, Table
from surgery.data.targets import TargetSpec, shorten


def check_table(
    table: Table,
    target: TargetSpec | None = None,
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
) -> Report:
    """Decode every image and mask once and report all that is wrong.

    Args:
        table: The dataset.
        target: What is to be learnt; None checks everything the table names.
        progress: Called with (files done, files in all).
        workers: Threads; None for one per core, eight at most.

    Returns:
        The report. Nothing is raised for what is wrong with the data; see `raise_for`.
    """
    items = _learnt(table, target)
    found: dict[Path, _Facts] = {}
    total = len(items)
    order = [[index] for index in range(total)]
    threads = min(os.cpu_count() or 1, 8) if workers is None else workers
    for facts in iterate(items, order, lambda item: _inspect(item, table, target), threads, 64):
        found[facts[0].item.image] = facts[0]
        if progress is not None:
            progress(len(found), total)
    problems = list(table.problems)
    warnings = list(table.warnings)
    for item in items:
        problems += found[item.image].problems
        warnings += found[item.image].warnings
    bad = {item.image for item in items if found[item.image].problems}
    whole = [item for item in items if item.image not in bad]
    leaks, copies, leaked = _find_copies(table, whole, found)
    copies += _find_similar(table, whole, found)
    pixels = {image: facts.pixels for image, facts in found.items() if facts.pixels is not None}
    empty, thin = _find_empty(table, target, items, pixels)
    return Report(
        table=table,
        target=target,
        problems=problems + leaks + empty,
        warnings=warnings + copies + thin,
        bad=frozenset(bad | leaked),
        pixels=pixels,
        summary=_summarise(table, items, found),
    )


def raise_for(report: Report, skip_bad: bool = False) -> Table:
    """Return the table to train on.

    Args:
        report: What the check found.
        skip_bad: Leave out the images that are at fault, and of an image in two splits the copy
            that is nearer to training.

    Raises:
        DataError: With all problems, if there are any; with `skip_bad`, if some remain.
    """
    if not report.problems:
        return report.table
    can_skip = f"; --skip-bad trains without {report.skipped} of them" if report.skipped else ""
    hint = f"fix or remove these{can_skip}"
    if not skip_bad:
        raise DataError(report.text(), hint)
    kept = replace(
        report.table,
        items=tuple(item for item in report.table.items if item.image not in report.bad),
        problems=tuple(p for p in report.table.problems if not p.left_out),
    )
    items = _learnt(kept, report.target)
    empty, _ = _find_empty(kept, report.target, items, report.pixels)
    left = [*kept.problems, *empty]
    if left:
        title = f"{kept.root}: without the {report.skipped} images at fault, the data still does not do"
        raise DataError("\n".join([title, *group_lines(kept, left)]), "fix or remove these")
    return kept


# --- one image ------------------------------------------------------------------------------------


@dataclass
class _Facts:
    """What one image and its mask showed."""

    item: Item
    size: tuple[int, int] | None = None
    content: str = ""
    look: Look | None = None
    pixels: NDArray[np.int64] | None = None
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)


def _inspect(item: Item, table: Table, target: TargetSpec | None) -> _Facts:
    facts = _Facts(item)
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


def _inspect_mask(facts: _Facts, table: Table, target: TargetSpec | None) -> None:
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


# --- the whole table ------------------------------------------------------------------------------


def _learnt(table: Table, target: TargetSpec | None) -> list[Item]:
    """Return the items that take part; images of classes that are not learnt need not be whole."""
    if target is None or table.task == "segment" or table.multilabel:
        return list(table.items)
    return [item for item in table.items if item.label is not None and target.indices[item.label] is not None]


def _find_copies(
    table: Table, items: Sequence[Item], found: dict[Path, _Facts]
) -> tuple[list[Problem], list[Problem], set[Path]]:
    """Return (leaks between splits, copies within one, the images to leave out for the leaks)."""
    groups: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        groups[found[item.image].content].append(item)
    leaks: list[Problem] = []
    copies: list[Problem] = []
    leaked: set[Path] = set()
    for group in groups.values():
        group.sort(key=lambda item: SPLITS.index(item.split))
        judge = group[-1]  # of train, val and test the last is the one that must stay clean
        for item in group[:-1]:
            name = table.relative(judge.image)
            if item.split != judge.split:
                message = f"({item.split}) is the same file as {name} ({judge.split})"
                leaks.append(Problem("same image in two splits", item.image, message))
                leaked.add(item.image)
            elif item.truth != judge.truth:
                message = f"is the same file as {name}, under another class"
                copies.append(Problem("same image in two classes", item.image, message))
            else:
                message = f"is the same file as {name}"
                copies.append(Problem("same image twice", item.image, message))
    return leaks, copies, leaked


def _find_similar(table: Table, items: Sequence[Item], found: dict[Path, _Facts]) -> list[Problem]:
    """Return a warning for each image that looks like one of a split nearer to the final score."""
    alike: list[Problem] = []
    for group in group_similar([found[item.image].look for item in items]):
        members = sorted((items[index] for index in group), key=lambda item: SPLITS.index(item.split))
        judge = members[-1]
        for item in members[:-1]:
            copy = found[item.image].content == found[judge.image].content
            if item.split != judge.split and not copy:
                message = f"({item.split}) looks like {table.relative(judge.image)} ({judge.split})"
                alike.append(Problem("similar images in two splits", item.image, message))
    return alike


def _find_empty(
    table: Table,
    target: TargetSpec | None,
    items: Sequence[Item],
    pixels: dict[Path, NDArray[np.int64]],
) -> tuple[list[Problem], list[Problem]]:
    """Return (what cannot be learnt at all, what can hardly be learnt or not be scored)."""
    empty: list[Problem] = []
    thin: list[Problem] = []
    for split in ("train", "val"):
        if not any(item.split == split for item in items):
            empty.append(Problem("empty split", table.root, f"no image is left in {split}"))
    counts = _count_classes(table, items, pixels)
    unit = "images" if table.task == "classify" else "pixels"
    for index, name in enumerate(table.classes):
        if target is not None and target.indices[index] is None:
            continue
        chosen = target is not None and name in target.output.classes and target.output.rest
        if counts["train"][index] == 0:
            like = "" if counts["val"][index] == 0 else f", {counts['val'][index]} in val"
            problem = Problem("empty class", table.root, f"{name!r} has no {unit} in train{like}")
            # A mask class that never occurs is harmless, unless it is what shall be learnt.
            (empty if table.task == "classify" or chosen else thin).append(problem)
        elif counts["val"][index] == 0 and (table.task == "classify" or chosen):
            message = f"{name!r} has no {unit} in val, so it has no score"
            thin.append(Problem("class without score", table.root, message))
    return empty, thin


def _count_classes(
    table: Table, items: Sequence[Item], pixels: dict[Path, NDArray[np.int64]]
) -> dict[str, list[int]]:
    """Return images, or pixels for masks, by split and class index."""
    size = len(table.classes)
    counts = {split: np.zeros(size, np.int64) for split in SPLITS}
    for item in items:
        if item.label is not None:
            counts[item.split][item.label] += 1
        elif item.labels is not None:
            counts[item.split][list(item.labels)] += 1
        elif item.image in pixels:
            counts[item.split] += pixels[item.image][:size]
    return {split: [int(n) for n in values] for split, values in counts.items()}


def _summarise(table: Table, items: Sequence[Item], found: dict[Path, _Facts]) -> dict[str, Any]:
    sizes = sorted(
        {facts.size for facts in found.values() if facts.size}, key=lambda size: (_area(size), size)
    )
    pixels = {image: facts.pixels for image, facts in found.items() if facts.pixels is not None}
    counts = _count_classes(table, items, pixels)
    images = Counter(item.split for item in items)
    return {
        "task": table.task,
        "layout": table.layout,
        "split": table.split_rule,
        "images": {split: images[split] for split in SPLITS if images[split]},
        "sizes": {
            "different": len(sizes),
            "smallest": list(sizes[0]) if sizes else [],
            "largest": list(sizes[-1]) if sizes else [],
        },
        "unit": "images" if table.task == "classify" else "pixels",
        "classes": {
            name: {split: counts[split][i] for split in SPLITS if images[split]}
            for i, name in enumerate(table.classes)
        },
    }


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]


def _times(size: tuple[int, int]) -> str:
    return f"{size[0]}×{size[1]}"
