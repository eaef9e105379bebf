"""Check a dataset: every file is decoded once, and every problem goes into one report."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from surgery.artifact.errors import DataError
from surgery.data.copies import find_copies
from surgery.data.frequency import (
    Frequencies,
    count_frequencies,
    find_empty,
    find_rare,
    unit_of,
    warn_of_balance,
)
from surgery.data.inspection import Facts, inspect_item
from surgery.data.loaders import iterate
from surgery.data.report import Report, group_lines
from surgery.data.table import SPLITS, Item, Table
from surgery.data.targets import TargetSpec


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
    found: dict[Path, Facts] = {}
    total = len(items)
    order = [[index] for index in range(total)]
    threads = min(os.cpu_count() or 1, 8) if workers is None else workers
    for facts in iterate(items, order, lambda item: inspect_item(item, table, target), threads, 64):
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
    copies = find_copies(table, whole, found)
    pixels = {image: facts.pixels for image, facts in found.items() if facts.pixels is not None}
    frequencies = count_frequencies(table, items, pixels)
    empty, thin = find_empty(table, target, items, frequencies)
    rare = find_rare(table, target, frequencies)
    return Report(
        table=table,
        target=target,
        problems=problems + copies.leaks + empty,
        warnings=warnings + copies.repeats + thin + warn_of_balance(table, target, frequencies, rare),
        bad=frozenset(bad | copies.leaked),
        pixels=pixels,
        summary=_summarise(table, items, found, frequencies),
        frequencies=frequencies,
        rare=rare,
        similar=copies.similar,
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
    frequencies = count_frequencies(kept, items, report.pixels)
    empty, _ = find_empty(kept, report.target, items, frequencies)
    left = [*kept.problems, *empty]
    if left:
        title = f"{kept.root}: without the {report.skipped} images at fault, the data still does not do"
        raise DataError("\n".join([title, *group_lines(kept, left)]), "fix or remove these")
    return kept


def _learnt(table: Table, target: TargetSpec | None) -> list[Item]:
    """Return the items that take part; images of classes that are not learnt need not be whole."""
    if target is None or table.task == "segment" or table.multilabel:
        return list(table.items)
    return [item for item in table.items if item.label is not None and target.indices[item.label] is not None]


def _summarise(
    table: Table, items: Sequence[Item], found: Mapping[Path, Facts], frequencies: Frequencies
) -> dict[str, Any]:
    sizes = sorted(
        {facts.size for facts in found.values() if facts.size}, key=lambda size: (size[0] * size[1], size)
    )
    images = Counter(item.split for item in items)
    splits = [split for split in SPLITS if images[split]]

    def by_name(counts: Mapping[str, Sequence[int]]) -> dict[str, dict[str, int]]:
        return {name: {split: counts[split][i] for split in splits} for i, name in enumerate(table.classes)}

    summary = {
        "task": table.task,
        "layout": table.layout,
        "split": table.split_rule,
        "images": {split: images[split] for split in splits},
        "sizes": {
            "different": len(sizes),
            "smallest": list(sizes[0]) if sizes else [],
            "largest": list(sizes[-1]) if sizes else [],
        },
        "unit": unit_of(table),
        "classes": by_name(frequencies.amounts),
    }
    if table.task == "classify":
        return summary
    unlisted = {
        str(value): {split: counts[split] for split in splits}
        for value, counts in frequencies.unlisted.items()
    }
    return summary | {"holding": by_name(frequencies.images), "unlisted_values": unlisted}
