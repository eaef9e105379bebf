"""One file per format in which labelled images lie on disk."""

from surgery.data.formats import class_folders, pairs
from surgery.data.formats.draft import Format

FORMATS: tuple[Format, ...] = (pairs.FORMAT, class_folders.FORMAT)
"""In the order in which they are tried."""
