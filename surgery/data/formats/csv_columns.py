"""The columns of a CSV file that names images: which of them says what."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from surgery.artifact.errors import DataError

DELIMITERS = (",", "\t", ";")
"""Those that a header is tried with, in this order: `;` may stand between the labels of a cell too."""
IMAGE_COLUMNS = (
    "path", "filepath", "imagepath", "image", "img", "file", "filename", "imagefile", "imagename", "imageid",
    "id",
)  # fmt: skip
"""Headers of the column of images in lower case without `_`, those that are preferred first."""
LABEL_COLUMNS = ("label", "labels", "class", "classes", "category", "target", "tag", "tags", "classid")
NO_LABELS = ("mask", "rle", "pixel", "box", "url")
"""What stands in the header of a column that is alone beside the images and no label."""
SPLIT_COLUMNS = ("split", "set", "subset", "fold")

Cells = tuple[int, list[str]]
"""The number of a line and its cells."""


@dataclass(frozen=True)
class Columns:
    """A file that names images, and what stands where in it."""

    path: Path
    """The file."""
    header: tuple[str, ...]
    """Names of the columns."""
    delimiter: str
    image: int
    """Index of the column that names images."""
    label: int | None
    """Index of the column of labels; None where there is none."""
    split: int | None
    """Index of the column of splits; None where there is none."""

    def describe(self) -> str:
        """Return the columns that count, in words."""
        used = (self.image, self.label, self.split)
        return ",".join(self.header[column] for column in used if column is not None)

    def rows(self) -> Iterator[Cells]:
        """Yield the number of the line and the cells of each row below the header, empty ones left out.

        Raises:
            DataError: If the text cannot be read.
        """
        lines = _read(self.path, self.delimiter)
        next(lines)
        for number, cells in lines:
            if any(cells):
                yield number, cells + [""] * (len(self.header) - len(cells))


def find_columns(path: Path) -> Columns | None:
    """Return what stands where in a CSV file by its header; None where no column names images.

    A column of labels is told by its name; where there is only one column besides, it is that one.

    Raises:
        DataError: If the text cannot be read.
    """
    for delimiter in DELIMITERS:
        header = next(_read(path, delimiter), (1, []))[1]
        names = ["".join(filter(str.isalnum, name.lower())) for name in header]
        image = _first(names, IMAGE_COLUMNS)
        if image is None:
            continue
        split = _first(names, SPLIT_COLUMNS)
        label = _first(names, LABEL_COLUMNS)
        others = [i for i, name in enumerate(names) if name and i not in (image, split)]
        if label is None and len(others) == 1 and not any(word in names[others[0]] for word in NO_LABELS):
            label = others[0]
        return Columns(path, tuple(header), delimiter, image, label, split)
    return None


def require_columns(path: Path) -> Columns:
    """Return what stands where in a CSV file.

    Raises:
        DataError: If no column names images, or none labels.
    """
    columns = find_columns(path)
    if columns is not None and columns.label is not None:
        return columns
    what = "images" if columns is None else "labels"
    header = columns.header if columns else next(_read(path, ","), (1, ["nothing"]))[1]
    raise DataError(
        f"{path} line 1: no column of {what}; the header has {', '.join(map(repr, header))}",
        "call the columns path and label (and split, with train, val or test in it)",
    )


def _first(names: Sequence[str], wanted: Sequence[str]) -> int | None:
    return next((names.index(name) for name in wanted if name in names), None)


def _read(path: Path, delimiter: str) -> Iterator[Cells]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter=delimiter)
            for cells in reader:
                yield reader.line_num, [cell.strip() for cell in cells]
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text", "save it as UTF-8") from error
    except csv.Error as error:
        raise DataError(f"{path}: is no CSV: {error}", "save it again as CSV") from error
