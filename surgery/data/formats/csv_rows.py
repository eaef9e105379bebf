"""The rows of a CSV file that names images, and what is wrong with them."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from surgery.data.formats.csv_columns import Cells, Columns
from surgery.data.formats.draft import Draft
from surgery.data.formats.image_index import ImageIndex
from surgery.data.formats.sides import SPLIT_NAMES
from surgery.data.table import SPLITS, Problem, Split

BETWEEN_LABELS = ";"


@dataclass(frozen=True)
class Row:
    """What one line says of an image that is there."""

    file: Path
    line: int
    image: Path
    labels: tuple[str, ...]
    """Names; exactly one where an image may have only one."""
    split: Split


def split_labels(cell: str, multilabel: bool) -> tuple[str, ...]:
    """Return the labels in a cell."""
    parts = cell.split(BETWEEN_LABELS) if multilabel else [cell]
    named = (unicodedata.normalize("NFC", part.strip()) for part in parts)
    return tuple(dict.fromkeys(name for name in named if name))


def read_rows(
    columns: Columns, cells: Sequence[Cells], split: Split | None, index: ImageIndex, draft: Draft
) -> list[Row]:
    """Return the rows of a file that name an image and its labels; the others are problems of the draft.

    Args:
        columns: What stands where.
        cells: The file's rows.
        split: The split of all of them; None reads it from their own column, if there is one.
        index: The images that are there.
        draft: Says whether a cell may hold several labels; takes the problems.
    """
    column = columns.split if split is None else None
    if column is not None:
        words = {row[column].lower() for _, row in cells} & set(SPLIT_NAMES)
        draft.splits = frozenset(SPLIT_NAMES[word] for word in words)
        if not words:
            message = f"column {columns.header[column]!r} holds no train, val or test; left out"
            draft.warnings.append(Problem("no splits", columns.path, message))
            column = None
    rows = []
    for line, row in cells:
        word = row[column].lower() if column is not None else split or "train"
        above = word if column is not None else _first_word(columns.path)
        name = row[columns.image]
        labels = split_labels(row[columns.label or 0], draft.multilabel)
        found = index.find(name, above) if name else []
        fault = _find_fault(row, columns, name, found, labels, draft.multilabel, word)
        if fault is not None:
            kind, message = fault
            draft.problems.append(Problem(kind, columns.path, f"line {line}: {message}", left_out=True))
            continue
        rows.append(Row(columns.path, line, found[0], labels, SPLIT_NAMES[word]))
    return rows


def _find_fault(
    row: Sequence[str], columns: Columns, name: str, found: Sequence[Path],
    labels: Sequence[str], multilabel: bool, word: str,
) -> tuple[str, str] | None:  # fmt: skip
    """Return the kind of what is wrong with a row and a message; None where nothing is."""
    if len(row) > len(columns.header):
        return "broken row", f"{len(row)} cells, but the header has {len(columns.header)}"
    if not name:
        return "image missing", "names no image"
    if not found:
        return "image missing", f"there is no {name!r}"
    if len(found) > 1:
        return "ambiguous image", f"{name!r} may be {found[0]} or {found[1]}"
    if not labels and not multilabel:
        return "label missing", f"{name!r} has no label"
    if word not in SPLIT_NAMES:
        return "unknown split", f"{word!r} is not one of {', '.join(SPLITS)}"
    return None


def drop_repeats(rows: Sequence[Row], draft: Draft) -> list[Row]:
    """Return one row for each image; images that are listed in two ways are problems of the draft."""
    kept: dict[Path, Row] = {}
    faulty: set[Path] = set()
    for row in rows:
        first = kept.setdefault(row.image, row)
        if first is row:
            continue
        where = f"line {row.line}: {row.image.name!r}"
        before = f"on line {first.line}" + ("" if first.file == row.file else f" of {first.file.name}")
        if set(first.labels) != set(row.labels):
            message = f"{where} is {_join(row)}, but {_join(first)} {before}"
            draft.problems.append(Problem("two labels", row.file, message, left_out=True))
            faulty.add(row.image)
        elif first.split != row.split:
            message = f"{where} is in {row.split}, but in {first.split} {before}"
            draft.problems.append(Problem("same image in two splits", row.file, message, left_out=True))
            # Of two splits the one that must stay clean keeps the image.
            kept[row.image] = max(first, row, key=lambda each: SPLITS.index(each.split))
        else:
            draft.warnings.append(Problem("image listed twice", row.file, f"{where} stands {before} already"))
    return [row for image, row in kept.items() if image not in faulty]


def _join(row: Row) -> str:
    return BETWEEN_LABELS.join(row.labels) or "without label"


def _first_word(path: Path) -> str:
    """Return the split that a file's name begins with, such as that of train_labels.csv."""
    word = path.stem.lower().replace("-", "_").split("_")[0]
    return word if word in SPLIT_NAMES else ""
