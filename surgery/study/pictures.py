"""The images of a study: small, few, and whole in memory; what is done to them before training."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from surgery.artifact.errors import ConfigError, DataError
from surgery.artifact.image import prepare_image, read_image
from surgery.artifact.manifest import InputSpec
from surgery.data.loaders import iterate
from surgery.data.table import Item, Table

Pixels = NDArray[np.uint8]
LARGEST_GIB = 4.0
"""Pixels that a study keeps in memory at most."""


@dataclass(frozen=True)
class Side:
    """Images of one side of the split.

    Attributes:
        images: (n, h, w, 3) uint8, as the network sees them.
        labels: (n,) int64, indices into the classes.
        names: What each image is called, for seeds and caches: the sha256 of its pixels, so that one digest
            has one set of names.
    """

    images: Pixels
    labels: NDArray[np.int64]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def of(self, chosen: Sequence[int]) -> Side:
        """Return the images of some classes, numbered in that order."""
        where = np.full(1 + max([*self.labels.tolist(), *chosen]), -1)
        where[list(chosen)] = np.arange(len(chosen))
        return self.take(np.flatnonzero(where[self.labels] >= 0)).relabelled(where)

    def take(self, rows: NDArray[np.int64]) -> Side:
        """Return some images, in the order of the rows."""
        return Side(self.images[rows], self.labels[rows], tuple(self.names[row] for row in rows))

    def relabelled(self, table: NDArray[np.int64]) -> Side:
        """Return the same images with `table[label]` for each label."""
        return replace(self, labels=table[self.labels].astype(np.int64))


@dataclass(frozen=True)
class Pictures:
    """What a study trains on and judges by.

    Attributes:
        classes: Names of the classes.
        train: For training.
        judged: For nothing but scores: test where the data has one, else val.
    """

    classes: tuple[str, ...]
    train: Side
    judged: Side

    def of(self, names: Sequence[str]) -> Pictures:
        """Return the part of some classes."""
        chosen = [self.classes.index(name) for name in names]
        return Pictures(tuple(names), self.train.of(chosen), self.judged.of(chosen))

    def digest(self) -> str:
        """Return one sha256 over classes, pixels and labels."""
        found = hashlib.sha256("\n".join(self.classes).encode())
        for side in (self.train, self.judged):
            found.update(str(side.images.shape).encode())
            found.update(np.ascontiguousarray(side.images).data)
            found.update(np.ascontiguousarray(side.labels).data)
        return found.hexdigest()[:24]


def read_pictures(
    table: Table,
    size: int,
    per_class: int | None,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
    join_val: bool = True,
) -> Pictures:
    """Read the images of a table into memory, cut and scaled as the service would.

    Where the data has a test side, scores are taken on it, and a val that was drawn from train goes back,
    unless `join_val` is off: a study chooses nothing by the images that it is judged on.

    Args:
        table: Of one label an image.
        size: Side of the square input, pixels.
        per_class: Images of a class on each side at most, the first by their digest; None: all.
        workers: Threads that read.
        progress: Called with (images read, images in all).
        join_val: Whether such a val may be trained on; off where what the study recommends is to be judged
            by it afterwards.

    Raises:
        ConfigError: If the labels are masks or several an image, or the images do not fit into memory.
        DataError: If a class has no image on one side.
    """
    if table.task != "classify" or table.multilabel:
        raise ConfigError(
            f"{table.root}: studies take images of one label each",
            "Give folders of classes, or a CSV with one label an image.",
        )
    held = "test" if table.of("test") else "val"
    joined = join_val and held == "test" and table.split_rule != "given"
    learnt = ("train", "val") if joined else ("train",)
    sides = [
        _bounded(table, [item for item in table.items if item.split in splits], per_class)
        for splits in (learnt, (held,))
    ]
    _check(table, sides, size)
    spec, done, total = InputSpec("crop", size, size, crop_share=1.0), 0, sum(map(len, sides))
    found = []
    for items in sides:
        images = np.empty((len(items), size, size, 3), np.uint8)
        order = [list(range(k, min(k + 64, len(items)))) for k in range(0, len(items), 64)]

        def read(item: Item) -> Pixels:
            return prepare_image(read_image(item.image), spec)

        for rows, loaded in zip(order, iterate(items, order, read, workers), strict=True):
            images[rows] = np.stack(loaded)  # (h, w, 3) each -> (n, h, w, 3)
            done += len(rows)
            if progress:
                progress(done, total)
        labels = np.array([item.label for item in items], np.int64)
        found.append(Side(images, labels, name_images(images)))
    return Pictures(table.classes, *found)


def name_images(images: Pixels) -> tuple[str, ...]:
    """Return the sha256 of the pixels of each image, (n, h, w, 3)."""
    return tuple(hashlib.sha256(np.ascontiguousarray(image).data).hexdigest() for image in images)


def _bounded(table: Table, items: list[Item], per_class: int | None) -> list[Item]:
    ordered = sorted(items, key=table.content_hash)
    kept: list[Item] = []
    for label in range(len(table.classes)):
        kept += [item for item in ordered if item.label == label][:per_class]
    return kept


def _check(table: Table, sides: list[list[Item]], size: int) -> None:
    for name, items in zip(("train", "val or test"), sides, strict=True):
        there = {item.label for item in items}
        absent = [table.classes[k] for k in range(len(table.classes)) if k not in there]
        if absent:
            raise DataError(
                f"{table.root}: no image in {name} of {', '.join(absent)}",
                "Give every class some images on both sides, or leave it out.",
            )
    gib = sum(map(len, sides)) * size * size * 3 / 2**30
    if gib > LARGEST_GIB:
        fits = int(LARGEST_GIB / gib * max(map(len, sides)) / len(table.classes))
        raise ConfigError(
            f"{table.root}: images of {size}×{size} take {gib:.1f} GiB; a study holds "
            f"{LARGEST_GIB:g} at most",
            f"--per-class {fits} fits, or a smaller --image-size.",
        )


def save_pictures(pictures: Pictures, folder: Path) -> str:
    """Keep pictures in a study's folder, for every process that trains on them; returns their digest."""
    digest = pictures.digest()
    path = folder / f"pictures-{digest}.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}.part")
        arrays: dict[str, Any] = {"classes": np.array(pictures.classes)}
        for name, side in (("train", pictures.train), ("judged", pictures.judged)):
            arrays |= {f"{name}_{key}": np.array(getattr(side, key)) for key in ("images", "labels", "names")}
        try:
            with aside.open("wb") as file:
                np.savez(file, **arrays)
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
    return digest


@functools.lru_cache(maxsize=2)
def load_pictures(folder: Path, digest: str) -> Pictures:
    """Return pictures that were kept; read once by each process."""
    with np.load(folder / f"pictures-{digest}.npz", allow_pickle=False) as file:
        sides = [
            Side(file[f"{name}_images"], file[f"{name}_labels"], tuple(map(str, file[f"{name}_names"])))
            for name in ("train", "judged")
        ]
        return Pictures(tuple(map(str, file["classes"])), *sides)
