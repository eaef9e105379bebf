"""Where the passport of a version lies: beside the versions, since a version is never altered."""

from __future__ import annotations

from pathlib import Path

from surgery.artifact.stored import StoredVersion

FOLDER = "passports"
PAGE = "passport.html"
VALUES = "passport.json"


def passport_folder(stored: StoredVersion) -> Path:
    """Return `models/NAME/passports/VERSION`, which need not exist."""
    return stored.path.parent / FOLDER / str(stored.version)


def find_passport(stored: StoredVersion) -> Path | None:
    """Return the page of a version's passport; None if it has none. Links are not followed."""
    folder = passport_folder(stored)
    page = folder / PAGE
    if page.is_symlink() or folder.is_symlink() or folder.parent.is_symlink():
        return None
    return page if page.is_file() else None
