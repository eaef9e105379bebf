"""Digests of files."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path


def hash_file(path: Path) -> str:
    """Return the sha256 of a file, remembered as long as its size and time stand."""
    stat = path.stat()
    return _hash_state(path, stat.st_size, stat.st_mtime_ns)


@functools.cache
def _hash_state(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
