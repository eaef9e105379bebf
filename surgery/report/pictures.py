"""Pictures inside the page: small WebP files as data URIs."""

from __future__ import annotations

import base64
import io
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from surgery.artifact.answer import Mask, draw_overlay
from surgery.artifact.image import Pixels
from surgery.artifact.manifest import OutputSpec
from surgery.data.targets import IGNORE

QUALITY = 80
LOSSLESS_SIDE = 64
"""Images up to this side are kept as they are: at that size every pixel shows."""
GREY = 128
"""What pixels that do not count are mixed with."""
OPACITY = 0.45
"""Weight of the colour inside a class that is shown alone."""


def data_uri(image: Pixels, side: int) -> str:
    """Return an image (h, w, 3) as the source of an `img`, scaled down to at most `side` pixels a side."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    picture.thumbnail((side, side), Image.Resampling.BILINEAR)
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=QUALITY, lossless=max(picture.size) <= LOSSLESS_SIDE)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def overlay_pair(
    image: Pixels, truth: NDArray[np.uint8], answer: Mask, output: OutputSpec, side: int
) -> tuple[Pixels, Pixels]:
    """Return the image with the truth laid over it, and with the answer; pixels that do not count are grey.

    Args:
        image: RGB, shape (h, w, 3).
        truth: Indices into the classes, shape (h, w); 255 where nothing counts.
        answer: Index mask, shape (h, w).
        output: Names and mask values of the classes.
        side: The pictures are scaled down to at most so many pixels a side.
    """
    size = _fit(image, side)
    # Drawn after scaling, so that edges stay as wide as they are drawn.
    small = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    wanted = cv2.resize(truth, size, interpolation=cv2.INTER_NEAREST)
    given = cast(Mask, cv2.resize(answer, size, interpolation=cv2.INTER_NEAREST))
    ignored = wanted == IGNORE
    small[ignored] = small[ignored] // 4 + GREY * 3 // 4
    values = np.array(output.mask_values)
    unused = next(value for value in range(len(values) + 1) if value not in output.mask_values)
    drawn = np.where(ignored, unused, values[np.where(ignored, 0, wanted)]).astype(np.uint16)
    return draw_overlay(small, drawn, output), draw_overlay(small, given, output)


def draw_class(
    image: Pixels, mask: NDArray[Any], value: int, colour: tuple[int, int, int], side: int
) -> Pixels:
    """Return the image with one class of its mask laid over it; all else is faint, other classes outlined.

    Args:
        image: RGB, shape (h, w, 3).
        mask: Raw mask values, shape (h, w).
        value: The class's.
        colour: What it is drawn in.
        side: The picture is scaled down to at most so many pixels a side.
    """
    size = _fit(image, side)
    small = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.float32)
    share = cv2.resize((mask == value).astype(np.float32), size, interpolation=cv2.INTER_AREA)
    # A thing thinner than a pixel of the picture must not vanish from it.
    inside = share >= (0.5 if share.max() >= 0.5 else np.finfo(np.float32).tiny)
    grey = small.mean(axis=2, keepdims=True)  # (h, w, 3) -> (h, w, 1)
    drawn = np.where(
        inside[:, :, None], small * (1 - OPACITY) + np.array(colour) * OPACITY, (grey + GREY) / 2
    )
    others = cv2.resize(mask.astype(np.uint16), size, interpolation=cv2.INTER_NEAREST)
    drawn[_edges(others) & ~inside] = (2 * GREY + 255) // 3
    drawn[inside & ~cv2.erode(inside.view(np.uint8), np.ones((3, 3), np.uint8)).view(bool)] = colour
    picture: Pixels = drawn.round().astype(np.uint8)
    return picture


def _fit(image: Pixels, side: int) -> tuple[int, int]:
    """Return (width, height) of an image that is scaled down to at most `side` pixels a side."""
    scale = min(1.0, side / max(image.shape[:2]))
    return max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))


def _edges(mask: NDArray[Any]) -> NDArray[np.bool_]:
    """Return where a mask (h, w) differs from its neighbour to the right or below."""
    edges = np.zeros(mask.shape, bool)
    edges[:, :-1] |= mask[:, 1:] != mask[:, :-1]
    edges[:-1] |= mask[1:] != mask[:-1]
    return edges
