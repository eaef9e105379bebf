"""Where a service keeps images that are unlike the training images, and how others find them."""

from __future__ import annotations

import os
import re
from pathlib import Path

from surgery.artifact.disk import list_entries
from surgery.artifact.names import check_name

VARIABLE = "SURGERY_SPOOL"
FOLDER = "spool"
"""Its name, beside the model store, where nothing names another place."""
SPOOLED = re.compile(r"[0-9]{8}T[0-9]{6}\.[0-9]{6}Z-[0-9a-f]{64}\.[a-z]+")
"""Name of an image: the moment it came, UTC, and its sha256. Nothing else in a spool is read or removed."""


def spool_root(models: Path, given: Path | str | None = None) -> Path:
    """Return the folder of all spools.

    Args:
        models: Root of the model store.
        given: The place that settings name; else `$SURGERY_SPOOL`, else `spool/` beside the store.
    """
    return Path(given or os.environ.get(VARIABLE) or models.parent / FOLDER)


def spool_folder(root: Path, name: str) -> Path:
    """Return the folder of a model's spool; no name leads out of the root.

    Raises:
        StoreError: If `name` cannot be a name.
    """
    return root / check_name(name)


def list_spooled(folder: Path) -> list[Path]:
    """Return the images of a spool, oldest first; [] if there is none."""
    return [folder / entry for entry in sorted(list_entries(folder)) if SPOOLED.fullmatch(entry)]


def is_spooled(path: Path, root: Path) -> bool:
    """Tell whether a file lies in a spool, or is called as its images are, wherever they were linked to.

    Args:
        path: Of the file.
        root: Of all spools, without links in it.
    """
    return SPOOLED.fullmatch(path.name) is not None or path.resolve().is_relative_to(root)
