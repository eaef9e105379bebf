"""One file per format in which labelled images lie on disk."""

from surgery.data.formats import carvana, class_folders, coco, csv_list, pairs, voc, yolo
from surgery.data.formats.draft import Format

FORMATS: tuple[Format, ...] = (
    yolo.FORMAT, coco.FORMAT, voc.FORMAT, carvana.FORMAT, pairs.FORMAT, csv_list.FORMAT, class_folders.FORMAT,
)  # fmt: skip
"""In the order in which they are tried."""
