"""Masks that are painted from outlines and run lengths instead of being read from image files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from surgery.artifact.errors import DataError, ImageError
from surgery.artifact.image import read_size
from surgery.data.hashing import hash_file

BACKGROUND = "background"
Shape = tuple[int, Any]
"""A class index and where it is: polygons `[[x, y, x, y, …], …]` in pixels, or COCO's run lengths."""
SLACK = 1e-3
"""How far a normalised coordinate may lie outside of 0–1: those who write it round."""


@dataclass(frozen=True)
class CocoMask:
    """The annotations of one image in a COCO file, painted."""

    path: Path
    """The JSON file."""
    image_id: int | str
    payload: bytes = field(compare=False, repr=False)
    """JSON of what is painted: height, width, and the shapes in the order of the annotations."""

    def read(self) -> NDArray[Any]:
        height, width, shapes = json.loads(self.payload)
        try:
            return paint(height, width, shapes)
        except DataError as error:
            raise DataError(f"{self.path}: image {self.image_id!r}: {error.message}", error.hint) from error

    def digest(self) -> str:
        return hashlib.sha256(self.payload).hexdigest()


@dataclass(frozen=True)
class YoloMask:
    """The outlines in a YOLO label file, painted over the background; without a file all is background."""

    path: Path
    """The label file, which need not be there."""
    image: Path
    """Its image, which says how large the mask is."""
    classes: int
    """Number of classes; their indices in the mask start with 1."""

    def read(self) -> NDArray[Any]:
        try:
            width, height = read_size(self.image)
        except ImageError as error:
            raise DataError(error.message, error.hint) from error
        rows, faults = parse_outlines(self._text(), self.classes)
        if faults:
            raise DataError(f"{self.path}: {'; '.join(faults[:5])}{' …' if len(faults) > 5 else ''}")
        scale = np.asarray([width, height])
        return paint(height, width, [(index, [(points * scale).ravel().tolist()]) for index, points in rows])

    def digest(self) -> str:
        return hash_file(self.path) if self.path.is_file() else hashlib.sha256(b"").hexdigest()

    def _text(self) -> str:
        try:
            return self.path.read_text("utf-8-sig") if self.path.is_file() else ""
        except UnicodeDecodeError as error:
            raise DataError(f"{self.path}: is not UTF-8 text") from error


def name_background(names: Sequence[str]) -> str:
    """Return the name of class 0, which is none of the others'."""
    return BACKGROUND if BACKGROUND not in names else f"{BACKGROUND} (unnamed)"


def paint(height: int, width: int, shapes: Sequence[Shape]) -> NDArray[Any]:
    """Return a mask of shapes; of shapes that overlap the smaller one stays visible.

    Args:
        height: Pixels.
        width: Pixels.
        shapes: What is painted over 0; of shapes of the same area the last stays visible.

    Returns:
        Class indices, shape (h, w), uint8 or, where indices are larger, uint16.

    Raises:
        DataError: If a shape is none.
    """
    from pycocotools import mask as coco

    largest = max((index for index, _ in shapes), default=0)
    mask = np.zeros((height, width), np.uint8 if largest < 256 else np.uint16)
    runs = [(index, _encode(height, width, shape)) for index, shape in shapes]
    for index, rle in sorted(runs, key=lambda pair: -int(coco.area(pair[1]))):
        mask[coco.decode(rle).astype(bool)] = index
    return mask


def parse_outlines(text: str, classes: int) -> tuple[list[tuple[int, NDArray[np.float64]]], list[str]]:
    """Read the rows `class x1 y1 x2 y2 …` of a YOLO label file.

    Args:
        text: The file's.
        classes: Number of classes that there are.

    Returns:
        The index in the mask (1 is the first class) and the points, shape (n, 2), 0–1, of each good
        row; and what is wrong with the others, by line.
    """
    rows: list[tuple[int, NDArray[np.float64]]] = []
    faults: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        try:
            values = np.asarray(words, np.float64)
        except ValueError:
            faults.append(f"line {number}: {line[:60]!r} are not all numbers")
            continue
        fault = _find_fault(values, classes)
        if fault:
            faults.append(f"line {number}: {fault}")
        else:
            points = values[1:].reshape(-1, 2).clip(0, 1)  # (2n,) -> (n, 2)
            rows.append((int(values[0]) + 1, points))
    return rows, faults


def find_box(text: str) -> int | None:
    """Return the number of the first line of a YOLO label file that is a box; None where there is none."""
    lines = enumerate(text.splitlines(), start=1)
    return next((number for number, line in lines if len(line.split()) == 5), None)


def _find_fault(values: NDArray[np.float64], classes: int) -> str:
    index, rest = values[0], values[1:]
    if len(rest) == 4:
        return "5 numbers are a box, not an outline"
    if len(rest) % 2:
        return f"{len(rest)} coordinates after the class, an odd number"
    if len(rest) < 6:
        return f"{len(rest) // 2} points; an outline has three or more"
    if not (index.is_integer() and 0 <= index < classes):
        return f"class {index:g} is not one of 0–{classes - 1}"
    outside = rest[~((rest >= -SLACK) & (rest <= 1 + SLACK))]
    return f"coordinate {outside[0]:g} is outside of 0–1" if len(outside) else ""


def _encode(height: int, width: int, shape: Any) -> dict[str, Any]:
    """Return a shape as run lengths that are known to fill the mask: the decoder does not look."""
    from pycocotools import mask as coco

    if isinstance(shape, dict):
        counts = shape.get("counts")
        runs: Any = _unpack_counts(counts) if isinstance(counts, str) else counts
        whole = isinstance(runs, list) and all(isinstance(n, int) and n >= 0 for n in runs)
        if not whole or shape.get("size") != [height, width] or sum(runs) != height * width:
            raise DataError(f"run lengths that do not make {width}×{height} pixels", "export the data again")
        return dict(coco.frPyObjects({"counts": runs, "size": [height, width]}, height, width))
    if not isinstance(shape, list) or not shape:
        raise DataError("a segmentation that is neither polygons nor run lengths", "export the data again")
    polygons = [_check_polygon(height, width, polygon) for polygon in shape]
    return dict(coco.merge(coco.frPyObjects(polygons, height, width)))


def _check_polygon(height: int, width: int, polygon: Any) -> list[float]:
    try:
        values = np.asarray(polygon, np.float64)
    except (TypeError, ValueError):
        values = np.zeros(0)
    if values.ndim != 1 or len(values) < 6 or len(values) % 2:
        count = len(polygon) if isinstance(polygon, list) else 0
        raise DataError(
            f"a polygon of {count} numbers; x and y of three points or more are needed", "mend it"
        )
    points = values.reshape(-1, 2)  # (2n,) -> (n, 2)
    size = np.asarray([width, height])
    # The painter's memory grows with the way round: a stray point would take all there is.
    far = ~((points >= -size) & (points <= 2 * size)).all(axis=1)
    if far.any():
        x, y = points[far][0]
        raise DataError(f"a point at ({x:g}, {y:g}), far outside of {width}×{height} pixels", "mend it")
    listed: list[float] = values.tolist()
    return listed


def _unpack_counts(text: str) -> list[int]:
    """Return the run lengths in COCO's compressed string; an empty list where it is broken.

    Six bits a character from `0` on: five of the number, low ones first, and one that says that more
    follow. From the fourth number on the difference to the last but one is kept.
    """
    counts: list[int] = []
    value = shift = 0
    for code in (ord(letter) - 48 for letter in text):
        if not 0 <= code < 64:
            return []
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    return counts if not shift else []
