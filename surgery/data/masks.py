"""Where the mask of an image comes from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from surgery.artifact.image import read_mask
from surgery.data.hashing import hash_file


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
