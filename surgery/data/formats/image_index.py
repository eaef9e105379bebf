"""Find the images that a list names: by path, by name in a folder further down, or without an ending."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from surgery.data.folders import IMAGE_SUFFIXES, list_images, subfolders

ENDINGS = ("", *sorted(IMAGE_SUFFIXES), *(suffix.upper() for suffix in sorted(IMAGE_SUFFIXES)))
"""What a list may leave out at the end of a name."""


class ImageIndex:
    """The images below a folder by everything that a list may call them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.images = list(list_images(folder))
        self._whole: dict[str, list[Path]] = defaultdict(list)
        self._bare: dict[str, list[Path]] = defaultdict(list)
        for path in self.images:
            parts = path.relative_to(folder).parts
            for start in range(len(parts)):
                tail = Path(*parts[start:])
                self._whole[_key(tail)].append(path)
                self._bare[_key(tail.with_suffix(""))].append(path)

    def find(self, text: str, above: str) -> list[Path]:
        """Return the images that a list may mean: one where all is well.

        Args:
            text: What the list says.
            above: Of several images that a text may mean, those in a folder whose name starts so
                are meant.
        """
        wanted = text.replace("\\", "/")
        if (self.folder / wanted).is_file():
            return [self.folder / wanted]
        key = _key(Path(wanted))
        found = self._whole.get(key) or self._bare.get(key, [])
        for narrow in (self._exactly(key, found), self._below(above, found)):
            if len(found) > 1 and narrow:
                found = narrow
        return found

    def _exactly(self, key: str, found: list[Path]) -> list[Path]:
        return [path for path in found if _key(path.relative_to(self.folder).with_suffix("")) == key]

    def _below(self, above: str, found: list[Path]) -> list[Path]:
        return [
            path
            for path in found
            if above and path.relative_to(self.folder).parts[0].lower().startswith(above.lower())
        ]


def lies_near(folder: Path, text: str, endings: Sequence[str] = ENDINGS) -> bool:
    """Whether a text with one of these endings names a file in a folder or at most two levels below."""
    subs = subfolders(folder)
    places = [folder, *subs, *(deeper for sub in subs for deeper in subfolders(sub))]
    name = text.replace("\\", "/")
    return bool(name) and any((place / (name + ending)).is_file() for place in places for ending in endings)


def _key(path: Path) -> str:
    # Names are stored decomposed by some systems and composed in most lists.
    return unicodedata.normalize("NFC", path.as_posix())
