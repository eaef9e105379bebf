"""Pictures inside the page: small WebP files as data URIs."""

from __future__ import annotations

import base64
import io
from typing import cast

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
    scale = min(1.0, side / max(image.shape[:2]))
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
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
