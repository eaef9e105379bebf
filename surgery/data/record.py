"""What a run remembers of its data, so that it can say what has changed since."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from surgery.data.table import Item, Table

DIGITS = 16
"""Letters kept of a digest: enough to tell files of one data set apart."""
SHOWN = 5
"""Images that a message names of each kind."""


def record_data(table: Table) -> dict[str, Any]:
    """Return classes and images of a table as plain values.

    Returns:
        `classes`, `ignored_values`, and `images`: by path seen from the root the digest of the file, the
        labels by name or the digest of the mask, and the side of the split.
    """
    images = {
        table.relative(item.image): [table.content_hash(item)[:DIGITS], _truth(table, item), item.split]
        for item in table.items
    }
    return {"classes": list(table.classes), "ignored_values": list(table.ignored_values), "images": images}


def describe_change(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what is otherwise in one record than in an earlier one, a line for each kind.

    An image that has another path and the same bytes is one that was moved: where the side of the split or
    the label is the name of a folder, it is that which has changed.
    """
    old, new = before["images"], now["images"]
    pairs = {name: name for name in old if name in new} | _find_moved(old, new)
    moved = [(a, b) for a, b in pairs.items() if a != b]
    kinds = {
        "added": [name for name in new if name not in pairs.values()],
        "removed": [name for name in old if name not in pairs],
        "changed": [b for a, b in pairs.items() if old[a][0] != new[b][0]],
        "with other labels or masks": [b for a, b in pairs.items() if old[a][1] != new[b][1]],
        "on another side of the split": [
            f"{b} ({old[a][2]} → {new[b][2]})" for a, b in pairs.items() if old[a][2] != new[b][2]
        ],
        "renamed": [f"{a} → {b}" for a, b in moved if old[a][1:] == new[b][1:]],
    }
    found = [f"{_count(names)} {kind}: {_name(names)}" for kind, names in kinds.items() if names]
    if before["classes"] != now["classes"]:
        found.append(f"classes: {_compare(before['classes'], now['classes'])}")
    if before["ignored_values"] != now["ignored_values"]:
        found.append(f"mask values left out: {before['ignored_values']} then, {now['ignored_values']} now")
    return found


def _truth(table: Table, item: Item) -> Any:
    if item.mask is not None:
        return f"{table.relative(item.mask.path)} {item.mask.digest()[:DIGITS]}"
    labels = (item.labels or ()) if item.label is None else (item.label,)
    return [table.classes[label] for label in labels]


def _find_moved(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, str]:
    """Return the new path of each image that is gone from its old one, where no other has the same bytes."""
    gone = _only_ones({name: old[name][0] for name in old if name not in new})
    come = _only_ones({name: new[name][0] for name in new if name not in old})
    return {gone[digest]: come[digest] for digest in gone if digest in come}


def _only_ones(digests: Mapping[str, str]) -> dict[str, str]:
    """Return the names of digests that occur once, by digest."""
    held = Counter(digests.values())
    return {digest: name for name, digest in digests.items() if held[digest] == 1}


def _count(names: Sequence[str]) -> str:
    return "1 image" if len(names) == 1 else f"{len(names):,} images"


def _name(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more:,} more" if more > 0 else "")


def _compare(before: list[str], now: list[str]) -> str:
    told = [f"{name} is new" for name in now if name not in before]
    told += [f"{name} is gone" for name in before if name not in now]
    return _name(told) if told else "the same in another order"
