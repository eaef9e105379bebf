"""Images that look the same: scaled, saved again, a little brighter, or the next frame of a film."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from surgery.artifact.errors import SurgeryError
from surgery.artifact.image import read_image

NEAR_BITS = 6
"""Perceptual hashes of images that look the same differ in no more of their 64 bits."""
NEAR_LEVELS = 6.0
"""And their thumbnails, each less its mean, by no more on average, of 255 levels."""
FLAT_LEVELS = 4.0
"""A thumbnail of a smaller deviation has nothing to be recognised by; only copies of the file are copies."""
THUMB = 16


@dataclass(frozen=True)
class Look:
    """What an image is recognised by."""

    bits: int
    """Perceptual hash, 64 bits (Zauner 2010, section 3.2.1; ImageHash's `phash`)."""
    thumb: NDArray[np.float32]
    """RGB, (16, 16, 3), less its mean."""
    flat: bool
    """Whether there is nothing in it."""


_looks: dict[tuple[Path, int, int], Look | None] = {}


def look_at(path: Path, image: NDArray[np.uint8] | None = None) -> Look | None:
    """Return what an image file is recognised by, or None if it cannot be read.

    Args:
        path: The file; it is looked at once as long as its size and time stand.
        image: Its pixels, where they are at hand: RGB, (h, w, 3).
    """
    try:
        stat = path.stat()
    except OSError:
        return None
    key = (path, stat.st_size, stat.st_mtime_ns)
    if key not in _looks:
        try:
            _looks[key] = _look(read_image(path) if image is None else image)
        except SurgeryError:
            _looks[key] = None
    return _looks[key]


def _look(image: NDArray[np.uint8]) -> Look:
    import imagehash

    picture = Image.fromarray(image)
    thumb = np.asarray(picture.resize((THUMB, THUMB), Image.Resampling.BOX), np.float32)
    bits = int(str(imagehash.phash(picture)), 16)
    contrast = float(thumb.std(axis=(0, 1)).max())  # of the strongest channel
    return Look(bits, thumb - thumb.mean(), contrast < FLAT_LEVELS)


def group_similar(looks: Sequence[Look | None]) -> list[list[int]]:
    """Return groups of indices that look the same, directly or through others; groups of one left out.

    Hashes that differ in at most `NEAR_BITS` bits agree in one of `NEAR_BITS + 1` bands at least, so only
    images that share a band are compared.
    """
    width = 64 // (NEAR_BITS + 1)
    bands: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index, look in enumerate(looks):
        if look is not None and not look.flat:
            for band in range(NEAR_BITS + 1):
                last = band == NEAR_BITS
                bits = look.bits >> (band * width) & ((1 << (64 if last else width)) - 1)
                bands[band, bits].append(index)
    parent = list(range(len(looks)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for members in bands.values():
        for at, first in enumerate(members):
            for second in members[at + 1 :]:
                if root(first) != root(second) and _same(looks[first], looks[second]):
                    parent[max(root(first), root(second))] = min(root(first), root(second))
    groups: dict[int, list[int]] = defaultdict(list)
    for index in range(len(looks)):
        groups[root(index)].append(index)
    return [group for group in groups.values() if len(group) > 1]


def _same(a: Look | None, b: Look | None) -> bool:
    if a is None or b is None or (a.bits ^ b.bits).bit_count() > NEAR_BITS:
        return False
    return float(np.abs(a.thumb - b.thumb).mean()) <= NEAR_LEVELS
