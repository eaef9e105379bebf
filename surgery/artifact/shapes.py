"""An index mask in other forms: outlines, run lengths, and how probable each class is per pixel."""

from __future__ import annotations

from typing import Any, TypedDict

import cv2
import numpy as np
from numpy.typing import NDArray

from surgery.artifact.answer import Floats, Mask, drawn_classes, mask_heat
from surgery.artifact.manifest import OutputSpec

Point = list[int]


class PolygonAnswer(TypedDict):
    """One connected piece of a class: its outline and its holes, points [x, y] at the corners of pixels."""

    label: str
    polygon: list[Point]
    holes: list[list[Point]]
    pixels: int


class RunLengths(TypedDict):
    """COCO's uncompressed run lengths: columns from left to right, zeros first."""

    size: list[int]
    """[height, width]"""
    counts: list[int]


def mask_polygons(mask: Mask, output: OutputSpec, min_pixels: int = 64) -> list[PolygonAnswer]:
    """Return the outline of each connected piece of each class but the rest, largest first.

    The points are pixels on the border itself, so that filling the outline (its border included) and
    emptying the holes (theirs left out) gives the piece again. Pieces hang together across corners.

    Args:
        mask: Index mask, shape (h, w).
        output: Names and values of the classes.
        min_pixels: Pieces of fewer pixels are left out.
    """
    found: list[PolygonAnswer] = []
    for name, value in drawn_classes(output):
        inside = (mask == value).view(np.uint8)
        outlines, tree = cv2.findContours(inside, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
        for k, outline in enumerate(outlines):
            if tree[0, k, 3] >= 0:  # a hole, which comes with its piece
                continue
            holes = [outlines[i] for i in range(len(outlines)) if tree[0, i, 3] == k]
            pixels = _count(outline, holes)
            if pixels >= min_pixels:
                points = [_points(hole) for hole in holes]
                found.append({"label": name, "polygon": _points(outline), "holes": points, "pixels": pixels})
    return sorted(found, key=lambda piece: -piece["pixels"])


def _points(outline: Any) -> list[Point]:
    points: list[Point] = outline[:, 0].tolist()  # (n, 1, 2) -> (n, 2)
    return points


def _count(outline: Any, holes: list[Any]) -> int:
    """Return the pixels of a piece, drawn in its own box."""
    x, y, width, height = cv2.boundingRect(outline)
    canvas = np.zeros((height, width), np.uint8)
    cv2.drawContours(canvas, [outline], -1, 1, cv2.FILLED, offset=(-x, -y))
    for hole in holes:
        cv2.drawContours(canvas, [hole], -1, 0, cv2.FILLED, offset=(-x, -y))
        cv2.drawContours(canvas, [hole], -1, 1, 1, offset=(-x, -y))
    return cv2.countNonZero(canvas)


def mask_run_lengths(mask: Mask, output: OutputSpec) -> dict[str, RunLengths]:
    """Return each class but the rest as COCO's uncompressed RLE (`pycocotools.mask.frPyObjects` reads it)."""
    found: dict[str, RunLengths] = {}
    for name, value in drawn_classes(output):
        flat = (mask == value).ravel(order="F")
        changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
        edges = np.concatenate(([0], changes, [flat.size]))
        counts = np.diff(edges).tolist()
        if flat[0]:
            counts.insert(0, 0)
        found[name] = {"size": list(mask.shape), "counts": counts}
    return found


def class_probabilities(
    logits: Floats, size: tuple[int, int], output: OutputSpec
) -> dict[str, NDArray[np.uint8]]:
    """Return how probable each class but the rest is per pixel, 255 for certain.

    Args:
        logits: Shape (c, h, w).
        size: (width, height) that the maps are resized to, as the mask is: before the probabilities.
        output: What the logits mean.

    Returns:
        For each class, shape (height, width).
    """
    named = {name: k for k, name in enumerate(output.classes)}
    return {name: mask_heat(logits, named[name], size, output) for name, _ in drawn_classes(output)}
