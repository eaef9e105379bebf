"""Which classes are learnt: from the labels on disk to the targets of training."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from surgery.artifact.errors import ConfigError, DataError
from surgery.artifact.manifest import OutputSpec
from surgery.data.masks import flatten_mask
from surgery.data.table import Item, Table, Task

IGNORE = 255
"""Target of a pixel that loss and metrics look away from."""
NO_LABEL = -100
"""Target of an image without a label, which they look away from too; a class may have index 255."""
REST = "rest"
"""Name of the class that stands for everything but the chosen classes."""


def ignored_target(output: OutputSpec) -> int:
    """Return the target that loss and metrics look away from: of a pixel, or of an image."""
    return IGNORE if output.mask_values else NO_LABEL


@dataclass(frozen=True)
class TargetSpec:
    """What is learnt from a table."""

    task: Task
    """One class per image, or one class per pixel."""
    output: OutputSpec
    """What the model's outputs will mean."""
    indices: tuple[int | None, ...]
    """By index into `Table.classes`: index into `output.classes`, or None where it is ignored."""
    ignored_values: tuple[int, ...] = ()
    """Mask values without a name that are ignored: those of `--ignore 255` and of the format."""

    def encode_mask(self, mask: NDArray[Any], where: str = "mask") -> NDArray[np.uint8]:
        """Return the training target of a mask as it was read.

        Args:
            mask: Raw values, shape (h, w); or (h, w, 3) with three equal channels.
            where: Name of the mask in error messages.

        Returns:
            Indices into `output.classes`, shape (h, w); 255 where loss and metrics look away.

        Raises:
            DataError: If a value has no class, or the mask is a colour image.
        """
        values = flatten_mask(mask, where)
        named = len(self.indices)
        lookup = _lookup(self.indices, self.ignored_values)
        # np.minimum alone would overflow where the table is longer than the mask's type reaches.
        target = lookup[np.minimum(values.astype(np.intp), len(lookup) - 1)]
        if (target < 0).any():
            unnamed = sorted({int(v) for v in np.unique(values[target < 0])})
            raise DataError(
                f"{where}: values {shorten(unnamed)} have no class; 0–{named - 1} have",
                "name them in classes.txt, or leave them out with "
                + " ".join(f"--ignore {value}" for value in unnamed[:3]),
            )
        encoded: NDArray[np.uint8] = target.astype(np.uint8)
        return encoded

    def select(self, table: Table) -> Table:
        """Return the table of what is learnt.

        classify: images of other classes are left out (where an image may have several labels, the
            other labels only), labels are indices into `output.classes`.
        segment: the table as it is; `encode_mask` does the work.
        """
        if self.task == "segment":
            return table
        if table.multilabel:
            return replace(table, classes=self.output.classes, items=tuple(map(self._relabel, table.items)))
        items = [
            replace(item, label=self.indices[item.label])
            for item in table.items
            if item.label is not None and self.indices[item.label] is not None
        ]
        return replace(table, classes=self.output.classes, items=tuple(items))

    def _relabel(self, item: Item) -> Item:
        kept = (self.indices[label] for label in item.labels or ())
        return replace(item, labels=tuple(sorted(label for label in kept if label is not None)))

    def describe(self) -> dict[str, Any]:
        """Return everything as plain data, for cache keys and manifests."""
        return asdict(self)


def resolve_target(table: Table, classes: Sequence[str] = (), ignore: Sequence[str] = ()) -> TargetSpec:
    """Find out what is learnt.

    Args:
        table: The data.
        classes: Chosen classes; empty for all. For masks one class is learnt against the rest by
            sigmoid, several by softmax with the rest as class 0.
        ignore: Classes left out. Of a mask these pixels count neither in loss nor in metrics; a
            number stands for a mask value without a name.

    Raises:
        ConfigError: If a name is not one of the table's classes, or too few classes remain.
    """
    values, names = _split_values(table, ignore)
    _require_known(table, "--classes", classes)
    _require_known(table, "--ignore", names)
    both = [name for name in classes if name in names]
    if both:
        raise ConfigError(f"{both[0]!r} stands in --classes and in --ignore", "choose one of them")
    if table.task == "segment" and classes:
        return _chosen_against_rest(table, classes, names, values)
    kept = list(dict.fromkeys(classes)) or [name for name in table.classes if name not in names]
    fewest = 1 if table.multilabel else 2
    if len(kept) < fewest:
        raise ConfigError(
            f"only {len(kept)} class is left to be learnt; {('one', 'two')[fewest - 1]} or more are needed",
            f"there are: {', '.join(table.classes)}",
        )
    indices = tuple(kept.index(name) if name in kept else None for name in table.classes)
    mask_values = tuple(table.classes.index(name) for name in kept)
    output = OutputSpec(
        activation="sigmoid" if table.multilabel else "softmax",
        classes=tuple(kept),
        mask_values=mask_values if table.task == "segment" else (),
    )
    return _bounded(TargetSpec(table.task, output, indices, values))


def nearest(name: str, names: Sequence[str]) -> str:
    """Return the name that is most like `name`, or an empty string."""
    folded = {other.casefold(): other for other in names}
    close = difflib.get_close_matches(name.casefold(), list(folded), n=1, cutoff=0.6)
    return folded[close[0]] if close else ""


def _chosen_against_rest(
    table: Table, classes: Sequence[str], ignored: Sequence[str], values: tuple[int, ...]
) -> TargetSpec:
    chosen = list(dict.fromkeys(classes))
    rest = REST if REST not in chosen else f"{REST} (unnamed)"
    learnt: list[int | None] = []
    for name in table.classes:
        index = chosen.index(name) + 1 if name in chosen else 0
        learnt.append(None if name in ignored else index)
    output = OutputSpec(
        activation="sigmoid" if len(chosen) == 1 else "softmax",
        classes=(rest, *chosen),
        mask_values=tuple(range(len(chosen) + 1)),
        rest=rest,
    )
    return _bounded(TargetSpec("segment", output, tuple(learnt), values))


def _bounded(target: TargetSpec) -> TargetSpec:
    count = len(target.output.classes)
    if target.task == "segment" and count > IGNORE:
        raise ConfigError(
            f"{count} classes of masks; at most {IGNORE} can be learnt at once",
            "choose some with --classes",
        )
    return target


def _split_values(table: Table, ignore: Sequence[str]) -> tuple[tuple[int, ...], list[str]]:
    """Tell mask values (`--ignore 255`) from names; a class may be named by a number too."""
    numbers = [
        name for name in ignore if table.task == "segment" and name.isdecimal() and name not in table.classes
    ]
    for number in numbers:
        if int(number) < len(table.classes):
            name = table.classes[int(number)]
            raise ConfigError(f"--ignore {number} is the class {name!r}", f"write --ignore {name}")
        if int(number) > 65535:
            raise ConfigError(f"--ignore {number}: no mask holds more than 65535", "")
    names = [name for name in ignore if name not in numbers]
    return tuple(sorted({*table.ignored_values, *(int(number) for number in numbers)})), names


def _require_known(table: Table, option: str, names: Sequence[str]) -> None:
    unknown = [name for name in names if name not in table.classes]
    if not unknown:
        return
    lines = []
    for name in unknown:
        like = nearest(name, table.classes)
        lines.append(
            f"{option}: {name!r} is not one of the {len(table.classes)} classes"
            + (f" (nearest: {like!r})" if like else "")
        )
    raise ConfigError("\n".join(lines), f"there are: {', '.join(table.classes)}")


@functools.lru_cache(maxsize=64)
def _lookup(indices: tuple[int | None, ...], ignored: tuple[int, ...]) -> NDArray[np.int16]:
    """Return the target by mask value; −1 for values without a class, the last entry among them."""
    lookup = np.full(max([len(indices), *(v + 1 for v in ignored)]) + 1, -1, np.int16)
    lookup[: len(indices)] = [IGNORE if index is None else index for index in indices]
    lookup[list(ignored)] = IGNORE
    return lookup


def shorten(values: Sequence[int], most: int = 8) -> str:
    shown = ", ".join(str(value) for value in values[:most])
    return shown + (f" and {len(values) - most} more" if len(values) > most else "")
