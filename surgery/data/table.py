"""The table of a dataset: which image has which label or mask, and on which side of the split."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from surgery.data.hashing import hash_file
from surgery.data.masks import MaskSource

Task = Literal["classify", "segment"]
Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, or worth knowing, about one file or folder."""

    kind: str
    """Stable name of the sort of problem, for grouping and for `--json`."""
    path: Path
    """The file or folder it is about."""
    message: str
    """What was found and what is allowed."""
    left_out: bool = False
    """Whether the reader left out what is at fault, so that the rest will do."""
    other: Path | None = None
    """The image that it is the same as, or looks like."""

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


@dataclass(frozen=True)
class Item:
    """One image of a dataset."""

    image: Path
    """The image file."""
    label: int | None
    """Index into `Table.classes` (classify, one label per image), else None."""
    mask: MaskSource | None
    """Where its mask comes from (segment); None where there is none."""
    split: Split
    """The side of the split it stands on."""
    labels: tuple[int, ...] | None = None
    """Indices into `Table.classes`, ascending, where an image may have several labels or none."""

    @property
    def truth(self) -> int | tuple[int, ...] | None:
        """The label, or all the labels of an image that may have several."""
        return self.label if self.labels is None else self.labels


@dataclass(frozen=True)
class Table:
    """A dataset as it was found on disk."""

    task: Task
    """What its labels are: one class per image, or one class per pixel."""
    root: Path
    """The folder that was read."""
    classes: tuple[str, ...]
    """classify: the labels' names; segment: the names of classes.txt, by mask value."""
    items: tuple[Item, ...]
    """All images, sorted by path."""
    layout: str
    """How the folder was understood, in words."""
    split_rule: str
    """Where the split comes from, in words: "given", "80/20 stratified, seed 0", …"""
    multilabel: bool = False
    """Whether an image may have several labels (classify)."""
    ignored_values: tuple[int, ...] = ()
    """Mask values that the format itself leaves out, such as the borders of Pascal VOC."""
    problems: tuple[Problem, ...] = ()
    """What the reader saw that stops a run; `check_table` reports it with its own findings."""
    warnings: tuple[Problem, ...] = ()
    """What the reader left out or took for granted."""

    def of(self, split: str) -> list[Item]:
        """Return the items of one side of the split, sorted by path."""
        return [item for item in self.items if item.split == split]

    def relative(self, path: Path) -> str:
        """Return `path` as seen from the root, with forward slashes; whole where it lies elsewhere."""
        return (path.relative_to(self.root) if path.is_relative_to(self.root) else path).as_posix()

    def content_hash(self, item: Item) -> str:
        """Return the sha256 of the image's bytes; read once per file and state of the file."""
        return hash_file(item.image)

    def fingerprint(self) -> str:
        """Return one sha256 over classes, paths, contents, labels, masks and split.

        Two tables with the same fingerprint train the same model; moving the root changes nothing.
        """
        ignored = [self.ignored_values] if self.ignored_values else []
        digest = hashlib.sha256(json.dumps([self.task, self.classes, *ignored]).encode())
        for item in sorted(self.items, key=lambda item: self.relative(item.image)):
            mask = [self.relative(item.mask.path), item.mask.digest()] if item.mask else []
            row = [self.relative(item.image), hash_file(item.image), item.truth, mask, item.split]
            digest.update(json.dumps(row).encode())
        return digest.hexdigest()
