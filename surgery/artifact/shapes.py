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
        labels, stats = cv2.connectedComponentsWithStats(inside, connectivity=8)[1:3]  # (h, w), (pieces, 5)
        outlines, tree = cv2.findContours(inside, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
        pieces: dict[int, PolygonAnswer] = {}
        for k, outline in enumerate(outlines):
            x, y = outline[0, 0]
            pixels, parent = int(stats[labels[y, x], cv2.CC_STAT_AREA]), int(tree[0, k, 3])
            if parent >= 0:  # a hole; its piece comes before it or was too small
                if parent in pieces:
                    pieces[parent]["holes"].append(_points(outline))
            elif pixels >= min_pixels:
                pieces[k] = {"label": name, "polygon": _points(outline), "holes": [], "pixels": pixels}
        found += pieces.values()
    return sorted(found, key=lambda piece: -piece["pixels"])


def _points(outline: Any) -> list[Point]:
    points: list[Point] = outline[:, 0].tolist()  # (n, 1, 2) -> (n, 2)
    return points


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
