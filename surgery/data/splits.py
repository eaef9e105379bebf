"""Draw validation images out of train: seeded, stratified, and never apart from their copies."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

from surgery.artifact.errors import ConfigError, DataError
from surgery.data.hashing import hash_file
from surgery.data.table import Item


def draw_val(items: Sequence[Item], share: float, seed: int) -> list[Item]:
    """Move a share of the train items to val; test is never touched.

    Copies of one file stay on one side. Of every class with two images or more at least one stays
    in train and one goes to val; a class with a single image stays in train.

    Args:
        items: All items in a fixed order; the draw depends on order, share and seed alone.
        share: Share of train that goes to val, between 0 and 1.
        seed: Seed of the draw.

    Returns:
        The same items in the same order, with their new split.

    Raises:
        ConfigError: If `share` is not between 0 and 1.
        DataError: If fewer than two different images are there to be split.
    """
    if not 0 < share < 1:
        raise ConfigError(f"val share {share} is not between 0 and 1", "0.2 is usual")
    groups = _group_copies([item for item in items if item.split == "train"])
    strata = _strata(groups)
    counts = Counter(strata)
    free = [group for group, stratum in zip(groups, strata, strict=True) if counts[stratum] > 1]
    if not free:
        raise DataError(
            f"{len(groups)} different training images are too few to draw val from",
            "add images, or give a val folder",
        )
    drawn = {item.image for group in _draw(free, share, seed) for item in group}
    return [replace(item, split="val") if item.image in drawn else item for item in items]


def describe_split(items: Sequence[Item], share: float, seed: int, whole: bool) -> str:
    """Return the rule of a drawn split in words."""
    how = "random" if items[0].truth is None else "stratified"
    percent = round(share * 100)
    if whole:
        return f"{100 - percent}/{percent} {how}, seed {seed}"
    return f"given, but val: {percent} % of train, {how}, seed {seed}"


def _draw(groups: list[list[Item]], share: float, seed: int) -> list[list[Item]]:
    from sklearn.model_selection import train_test_split

    labels = _strata(groups)
    kinds = len(set(labels))
    # Stratifying needs one group of every class on each side.
    count = min(max(round(share * len(groups)), kinds), len(groups) - kinds)
    _, drawn = train_test_split(
        groups,
        test_size=count,
        random_state=seed,
        stratify=labels if kinds > 1 else None,
    )
    return list(drawn)


def _strata(groups: Sequence[list[Item]]) -> list[int]:
    """Return what each group is stratified by: its label, or of several labels the rarest."""
    counts = Counter(label for group in groups for label in group[0].labels or ())

    def stratum(item: Item) -> int:
        if item.labels:
            return min(item.labels, key=lambda label: (counts[label], label))
        return -1 if item.label is None else item.label

    return [stratum(group[0]) for group in groups]


def _group_copies(items: Sequence[Item]) -> list[list[Item]]:
    """Group items of the same label whose files hold the same bytes, in order of the first."""
    sizes = Counter(item.image.stat().st_size for item in items)
    groups: dict[tuple[object, ...], list[Item]] = defaultdict(list)
    for item in items:
        # Only files of the same size can be copies; the others need not be read.
        alone = sizes[item.image.stat().st_size] == 1
        groups[(item.image,) if alone else (hash_file(item.image),)].append(item)
    return list(groups.values())
