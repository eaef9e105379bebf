"""Where the mask of an image comes from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from surgery.artifact.errors import DataError
from surgery.artifact.image import read_mask
from surgery.data.hashing import hash_file

Colour = tuple[int, int, int]
"""Red, green and blue, 0–255."""
Colours = tuple[tuple[Colour, int], ...]
"""Each colour of a mask and the mask value that it stands for."""
SHOWN_COLOURS = 5
"""Unknown colours that a message names."""


class MaskSource(Protocol):
    """What says which class each pixel of an image has. Hashable, and equal where the place is."""

    @property
    def path(self) -> Path:
        """The file that messages name."""

    def read(self) -> NDArray[Any]:
        """Return the mask: indices of classes, shape (h, w); grey saved as RGB may be (h, w, 3).

        Raises:
            DataError: If the file is damaged or does not do.
        """

    def digest(self) -> str:
        """Return a sha256 of everything that decides the mask."""


@dataclass(frozen=True)
class IndexMask:
    """An image file whose values are classes."""

    path: Path

    def read(self) -> NDArray[Any]:
        return read_mask(self.path)

    def digest(self) -> str:
        return hash_file(self.path)


@dataclass(frozen=True)
class BinaryMask:
    """An image file of two values, 0 for the background and any other for the foreground."""

    path: Path

    def read(self) -> NDArray[Any]:
        values = flatten_mask(read_mask(self.path), str(self.path))
        found = [int(value) for value in np.unique(values)]
        if sum(value > 0 for value in found) > 1:
            shown = ", ".join(str(value) for value in found[:8])
            raise DataError(
                f"{self.path}: is no mask of two values, it holds {shown}{' …' if len(found) > 8 else ''}",
                "save it without loss (PNG) with 0 and one other value, or name every value in classes.txt",
            )
        return (values > 0).astype(np.uint8)

    def digest(self) -> str:
        return hashlib.sha256(f"binary {hash_file(self.path)}".encode()).hexdigest()


@dataclass(frozen=True)
class ColourMask:
    """An image file whose colours stand for classes."""

    path: Path
    colours: Colours = field(compare=False, repr=False)
    """The colours that may occur, and their mask values."""

    def read(self) -> NDArray[Any]:
        codes = _pack(read_colours(self.path))
        table = sorted((_pack_one(colour), value) for colour, value in self.colours)
        known = np.asarray([code for code, _ in table], np.uint32)
        values = np.asarray([value for _, value in table], np.uint16)
        place = np.minimum(np.searchsorted(known, codes), len(known) - 1)
        unknown = known[place] != codes
        if unknown.any():
            raise DataError(
                f"{self.path}: {_describe_unknown(codes[unknown])}",
                "add them to the table of colours; where there are many, the mask was smoothed, scaled or "
                "saved as JPEG: export it again without that",
            )
        mask: NDArray[Any] = values[place]
        return mask.astype(np.uint8) if values.max() < 256 else mask

    def digest(self) -> str:
        return hashlib.sha256(f"{hash_file(self.path)} {sorted(self.colours)}".encode()).hexdigest()


def flatten_mask(mask: NDArray[Any], where: str = "mask") -> NDArray[Any]:
    """Return an index mask (h, w); grey values that were saved as RGB are taken back.

    Raises:
        DataError: If the mask is a colour image.
    """
    if mask.ndim == 2:
        return mask
    grey = mask[:, :, 0]  # (h, w, 3) -> (h, w)
    if not (np.array_equal(grey, mask[:, :, 1]) and np.array_equal(grey, mask[:, :, 2])):
        raise DataError(
            f"{where}: is a colour image; an index mask is needed, whose values are classes",
            "save it as an 8-bit grey or palette PNG: value 0 for the first line of classes.txt, …",
        )
    return grey


def read_colours(path: Path) -> NDArray[Any]:
    """Return the colours of a mask, shape (h, w, 3); palettes are applied, grey is repeated.

    Raises:
        DataError: If the file is no whole image.
    """
    values = read_mask(path)
    if values.ndim == 3:
        return values
    palette = read_palette(path)
    if palette is not None:
        painted: NDArray[np.uint8] = palette[values]  # (h, w) -> (h, w, 3)
        return painted
    return np.repeat(values[:, :, None], 3, axis=2)  # (h, w) -> (h, w, 3)


def read_palette(path: Path) -> NDArray[np.uint8] | None:
    """Return the 256 colours of a palette image, shape (256, 3); None for other images."""
    with Image.open(path) as image:
        if image.mode != "P":
            return None
        flat = image.getpalette("RGB") or []
    flat += [0] * (3 * 256 - len(flat))
    return np.asarray(flat, np.uint8).reshape(256, 3)  # (768,) -> (256, 3)


def count_colours(pixels: NDArray[Any]) -> dict[Colour, int]:
    """Return how many pixels, shape (…, 3), have each colour."""
    codes, counts = np.unique(_pack(pixels), return_counts=True)
    return {_unpack(int(code)): int(n) for code, n in zip(codes, counts, strict=True)}


def _pack(pixels: NDArray[Any]) -> NDArray[np.uint32]:
    """Return one number a pixel, (…, 3) -> (…)."""
    wide = pixels.astype(np.uint32)
    packed: NDArray[np.uint32] = wide[..., 0] * 65536 + wide[..., 1] * 256 + wide[..., 2]
    return packed


def _pack_one(colour: Colour) -> int:
    return colour[0] << 16 | colour[1] << 8 | colour[2]


def _unpack(code: int) -> Colour:
    return code >> 16, code >> 8 & 255, code & 255


def _describe_unknown(codes: NDArray[np.uint32]) -> str:
    found, counts = np.unique(codes, return_counts=True)
    most = np.argsort(counts, kind="stable")[: -SHOWN_COLOURS - 1 : -1].tolist()
    shown = ", ".join(f"{_unpack(int(found[i]))}: {counts[i]} pixels" for i in most)
    more = f" and {len(found) - SHOWN_COLOURS} more" if len(found) > SHOWN_COLOURS else ""
    return f"{len(found)} colours have no class: {shown}{more}"
