"""Images that a dataset holds twice: copies of a file, and images that look the same."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from surgery.data.inspection import Facts
from surgery.data.similar import group_similar
from surgery.data.table import SPLITS, Item, Problem, Table


@dataclass
class Copies:
    """What was found more than once; every problem names the `other` image."""

    leaks: list[Problem] = field(default_factory=list)
    """The same file in two splits."""
    leaked: set[Path] = field(default_factory=set)
    """Of these the images to leave out: of train, val and test the last must stay clean."""
    repeats: list[Problem] = field(default_factory=list)
    """The same file twice in one split, and images of two splits that look the same."""
    similar: list[Problem] = field(default_factory=list)
    """Images that look like another of their own split: no fault, but they are worth less than they count."""


def find_copies(table: Table, items: Sequence[Item], found: Mapping[Path, Facts]) -> Copies:
    """Compare all images with each other.

    Args:
        table: The dataset.
        items: Its images that could be read.
        found: What each of them showed.
    """
    copies = Copies()
    groups: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        groups[found[item.image].content].append(item)
    for group in groups.values():
        group.sort(key=lambda item: SPLITS.index(item.split))
        for item in group[:-1]:
            _compare(table, item, group[-1], copies)
    _find_similar(table, items, found, copies)
    return copies


def _compare(table: Table, item: Item, judge: Item, copies: Copies) -> None:
    """Note that an image is the same file as the one that stays."""
    name = table.relative(judge.image)
    if item.split != judge.split:
        message = f"({item.split}) is the same file as {name} ({judge.split})"
        copies.leaks.append(Problem("same image in two splits", item.image, message, other=judge.image))
        copies.leaked.add(item.image)
    elif item.truth != judge.truth:
        message = f"is the same file as {name}, under another class"
        copies.repeats.append(Problem("same image in two classes", item.image, message, other=judge.image))
    else:
        message = f"is the same file as {name}"
        copies.repeats.append(Problem("same image twice", item.image, message, other=judge.image))


def _find_similar(table: Table, items: Sequence[Item], found: Mapping[Path, Facts], copies: Copies) -> None:
    """Note each image that looks like one of a split nearer to the final score, or of its own split."""
    for group in group_similar([found[item.image].look for item in items]):
        members = sorted((items[index] for index in group), key=lambda item: SPLITS.index(item.split))
        last = members[-1].split
        judges = [item for item in members if item.split == last]
        seen: dict[str, list[Item]] = defaultdict(list)
        for item in members:
            before = _others(item, tuple(seen[item.split]), found)
            seen[item.split].append(item)
            if before:
                other = _nearest(item, before, found)
                message = f"looks like {table.relative(other.image)}"
                copies.similar.append(Problem("similar images", item.image, message, other=other.image))
            across = _others(item, judges, found) if item.split != last else []
            if across:
                other = _nearest(item, across, found)
                message = f"({item.split}) looks like {table.relative(other.image)} ({last})"
                kind = "similar images in two splits"
                copies.repeats.append(Problem(kind, item.image, message, other=other.image))


def _others(item: Item, others: Sequence[Item], found: Mapping[Path, Facts]) -> Sequence[Item]:
    """Return the images that may look like `item`; none where one is the same file: that is told already."""
    content = found[item.image].content
    return [] if any(found[other.image].content == content for other in others) else others


def _nearest(item: Item, others: Sequence[Item], found: Mapping[Path, Facts]) -> Item:
    """Return the image that looks most like `item`: a group is held together by chains."""

    def distance(other: Item) -> int:
        a, b = found[item.image].look, found[other.image].look
        return (a.bits ^ b.bits).bit_count() if a and b else 64

    return min(others, key=distance)
