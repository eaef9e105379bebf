"""Draw validation images out of train: seeded, stratified, and never apart from what looks the same."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from surgery.artifact.errors import ConfigError, DataError, SurgeryError
from surgery.data.hashing import hash_file
from surgery.data.loaders import iterate
from surgery.data.masks import flatten_mask
from surgery.data.similar import Look, group_similar, look_at
from surgery.data.table import Item
from surgery.data.targets import IGNORE

TRIES = 256
"""Random draws of which the one with the most even contents is taken (masks, several labels)."""

Group = list[Item]
"""Images that stay on one side: copies of a file, and images that look the same."""


def draw_val(
    items: Sequence[Item], share: float, seed: int, recorded: Mapping[str, str] | None = None
) -> list[Item]:
    """Move a share of the train items to val; test is never touched.

    Images that look the same stay on one side. Of every class with two such groups or more at least one
    stays in train and one goes to val; a class with one stays in train. Masks and several labels are drawn
    so that each class has about the same share of pixels, or of images, on both sides.

    Args:
        items: All items in a fixed order; the draw depends on order, share, seed and record alone.
        share: Share of train that goes to val, between 0 and 1.
        seed: Seed of the draw.
        recorded: `train` or `val` by the sha256 of images that an earlier draw has placed. They stay where
            they are, what looks like them joins them, and only the others are drawn.

    Returns:
        The same items in the same order, with their new split.

    Raises:
        ConfigError: If `share` is not between 0 and 1.
        DataError: If fewer than two different images are there to be split.
    """
    if not 0 < share < 1:
        raise ConfigError(f"val share {share} is not between 0 and 1", "0.2 is usual")
    groups = group_items([item for item in items if item.split == "train"])
    placed = {item.image: side for group in groups for item, side in _place(group, recorded or {})}
    fresh = [group for group in groups if group[0].image not in placed]
    wanted = round(share * len(groups)) - sum(
        any(placed.get(item.image) == "val" for item in group) for group in groups
    )
    if placed:
        drawn = _draw(fresh, min(max(0, wanted), max(0, len(fresh) - 1)), seed)
    else:
        drawn = _draw_first(fresh, share, seed)
    if groups and groups[0][0].label is not None:
        drawn = _even_out(fresh, drawn, placed, items, seed)
    moved = {item.image for group in drawn for item in group}
    moved |= {image for image, side in placed.items() if side == "val"}
    return [replace(item, split="val") if item.image in moved else item for item in items]


def describe_split(share: float, seed: int, whole: bool, recorded: bool) -> str:
    """Return the rule of a drawn split in words."""
    percent = round(share * 100)
    kept = ", earlier images on their side" if recorded else ""
    if whole:
        return f"{100 - percent}/{percent} stratified, seed {seed}{kept}"
    return f"given, but val: {percent} % of train, stratified, seed {seed}{kept}"


def record_split(items: Sequence[Item]) -> dict[str, str]:
    """Return the side of each image by its sha256, for the next draw."""
    return {hash_file(item.image): item.split for item in items}


def _place(group: Group, recorded: Mapping[str, str]) -> list[tuple[Item, str]]:
    """Return the sides of a group of which an image is recorded; the unrecorded ones join the first such."""
    known = [(item, recorded.get(_digest(item.image) or "")) for item in group] if recorded else []
    sides = [side for _, side in known if side in ("train", "val")]
    return [(item, side or sides[0]) for item, side in known] if sides else []


def _draw_first(groups: list[Group], share: float, seed: int) -> list[Group]:
    """Draw where nothing is placed yet; a class with one group stays in train."""
    strata = [group[0].label for group in groups]
    counts = Counter(strata)
    free = [group for group, label in zip(groups, strata, strict=True) if label is None or counts[label] > 1]
    if len(free) < 2:
        raise DataError(
            f"{len(groups)} different training images are too few to draw val from",
            "add images, or give a val folder",
        )
    kinds = len({group[0].label for group in free})
    # Stratifying needs one group of every class on each side.
    return _draw(free, min(max(round(share * len(free)), kinds), len(free) - kinds), seed)


def _draw(groups: list[Group], count: int, seed: int) -> list[Group]:
    if count <= 0:
        return []
    if groups[0][0].label is None:
        return _draw_even(groups, count, seed)
    from sklearn.model_selection import train_test_split

    labels = [group[0].label for group in groups]
    counts = Counter(labels)
    kinds = len(counts)
    fits = min(counts.values()) > 1 and kinds <= count <= len(groups) - kinds
    _, drawn = train_test_split(
        groups, test_size=count, random_state=seed, stratify=labels if kinds > 1 and fits else None
    )
    return list(drawn)


def _even_out(
    fresh: list[Group], drawn: list[Group], placed: Mapping[Path, str], items: Sequence[Item], seed: int
) -> list[Group]:
    """Move as few groups as it takes for every class with two groups to be on both sides, one in train."""
    rng = np.random.default_rng(seed)
    standing = {(item.label, placed[item.image]) for item in items if item.image in placed}
    chosen = {group[0].image for group in drawn}
    by_label: dict[int | None, list[Path]] = defaultdict(list)
    for group in fresh:
        by_label[group[0].label].append(group[0].image)
    for label, firsts in by_label.items():
        val, train = [i for i in firsts if i in chosen], [i for i in firsts if i not in chosen]
        in_val, in_train = (label, "val") in standing, (label, "train") in standing
        if not val and not in_val and (in_train or len(train) > 1):
            chosen.add(train[rng.integers(len(train))])
        elif not train and not in_train:
            chosen.remove(val[rng.integers(len(val))])
    return [group for group in fresh if group[0].image in chosen]


def _draw_even(groups: list[Group], count: int, seed: int) -> list[Group]:
    """Of many random draws return the one in which every class has the most even share on both sides."""
    contents = _contents(groups)  # (groups, classes)
    total = contents.sum(0)
    seen = total > 0
    rng = np.random.default_rng(seed)
    best: tuple[float, list[int]] | None = None
    for _ in range(TRIES):
        chosen = sorted(rng.choice(len(groups), count, replace=False).tolist())
        share = contents[chosen].sum(0)[seen] / total[seen]
        uneven = float(np.abs(share * len(groups) / count - 1).sum())
        if best is None or uneven < best[0]:
            best = uneven, chosen
    assert best is not None
    return [groups[index] for index in best[1]]


def _contents(groups: list[Group]) -> NDArray[np.float64]:
    """Return each group's images by label, or the shares of its masks' pixels by value."""
    items = [item for group in groups for item in group]
    counting = iterate(items, [[index] for index in range(len(items))], _count)
    counted = dict(loaded[0] for loaded in counting)
    size = max(len(counts) for counts in counted.values())
    rows = np.zeros((len(groups), size))
    for row, group in zip(rows, groups, strict=True):
        for item in group:
            row[: len(counted[item])] += counted[item]
    return rows


def _count(item: Item) -> tuple[Item, NDArray[np.float64]]:
    if item.mask is None:
        return item, np.bincount(item.labels or (), minlength=1).astype(float)
    try:
        values = flatten_mask(item.mask.read())
    except SurgeryError:  # the check reports it
        return item, np.zeros(1)
    counts = np.bincount(values[values < IGNORE].ravel(), minlength=1)
    return item, counts / values.size


def group_items(items: Sequence[Item]) -> list[Group]:
    """Group items whose files are copies or that look the same, in order of the first."""
    sizes = [_size(item.image) for item in items]
    several = Counter(sizes)
    looks = [loaded[0] for loaded in iterate(items, [[i] for i in range(len(items))], _look)]
    alike: dict[int, int] = {}
    for members in group_similar(looks):
        alike |= dict.fromkeys(members, members[0])
    # Only files of the same size can be copies; the others need not be read.
    copies: dict[str, int] = {}
    for index, item in enumerate(items):
        digest = _digest(item.image) if several[sizes[index]] > 1 else None
        if digest is not None:
            first = copies.setdefault(digest, index)
            if first != index and index not in alike:
                alike[index] = alike.get(first, first)
    groups: dict[int, Group] = defaultdict(list)
    for index, item in enumerate(items):
        groups[alike.get(index, index)].append(item)
    return list(groups.values())


def _size(path: Path) -> int:
    """Return the bytes of a file, -1 where it cannot be read: the check reports it."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _digest(path: Path) -> str | None:
    """Return the sha256 of a file, None where it cannot be read: the check reports it."""
    try:
        return hash_file(path)
    except OSError:
        return None


def _look(item: Item) -> Look | None:
    return look_at(item.image)
