"""One file per format in which labelled images lie on disk."""

from surgery.data.formats import carvana, class_folders, pairs, voc
from surgery.data.formats.draft import Format

FORMATS: tuple[Format, ...] = (voc.FORMAT, carvana.FORMAT, pairs.FORMAT, class_folders.FORMAT)
"""In the order in which they are tried."""
