"""A CSV file that names images and their labels."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from surgery.artifact.errors import DataError
from surgery.data.folders import describe_folder, files_in, list_images, subfolders
from surgery.data.formats.csv_columns import Columns, find_columns, require_columns
from surgery.data.formats.csv_rows import BETWEEN_LABELS, drop_repeats, read_rows, split_labels
from surgery.data.formats.draft import LAYOUTS, Draft, Format
from surgery.data.formats.image_index import ENDINGS, ImageIndex, lies_near
from surgery.data.formats.sides import SPLIT_NAMES, side_folders
from surgery.data.table import Item, Problem, Split

SUFFIXES = (".csv", ".tsv")
NO_LISTS = ("sample_submission", "samplesubmission", "submission")
"""Files of competitions that look like lists of labels and are none."""
TRIED = 5
"""Rows of which one must name an image, so that a file beside class folders is taken for a list."""

Lists = Mapping[Split | None, Columns]
"""The files of a data set by split; one file of no split by None."""


def fits(root: Path) -> bool:
    """Whether it is a CSV file, or a folder with one that names images and labels."""
    if root.is_file():
        return root.suffix.lower() in SUFFIXES
    if not root.is_dir():
        return False
    lists = _labelled(root)
    if not lists or not _has_class_folders(root):
        return bool(lists)
    # Beside class folders a list must spell its images out: a table of classes has an `id` too.
    return any(_names_images(columns, ("",)) for columns in lists)


def read(root: Path) -> Draft:
    """Read the images that the file names.

    Raises:
        DataError: If no file, or more than one, lists images and labels.
    """
    draft = Draft("classify", "")
    lists = _choose(root, draft)
    cells = {split: list(columns.rows()) for split, columns in lists.items()}
    labels = [
        row[columns.label or 0]
        for split, columns in lists.items()
        for _, row in cells[split]
        if len(row) == len(columns.header)
    ]
    draft.multilabel = any(BETWEEN_LABELS in cell for cell in labels)
    names = {name for cell in labels for name in split_labels(cell, draft.multilabel)}
    if len(names) < (1 if draft.multilabel else 2):
        raise DataError(
            f"{root}: one class only ({', '.join(names) or 'none'}); two classes or more are needed",
            "check the column of labels",
        )
    draft.classes = _sort(names)
    draft.layout = ", ".join(f"{each.path.name}: {each.describe()}" for each in lists.values())
    draft.splits = frozenset(split for split in lists if split is not None)
    folder = root if root.is_dir() else root.parent
    index = ImageIndex(folder)
    rows = []
    for split, columns in lists.items():
        rows += read_rows(columns, cells[split], split, index, draft)
    numbers = {name: i for i, name in enumerate(draft.classes)}
    for row in drop_repeats(rows, draft):
        found = tuple(sorted(numbers[name] for name in row.labels))
        if draft.multilabel:
            draft.items.append(Item(row.image, None, None, row.split, found))
        else:
            draft.items.append(Item(row.image, found[0], None, row.split))
    left = len(set(index.images) - {row.image for row in rows})
    if left:
        draft.warnings.append(
            Problem("images not listed", folder, f"{left} images stand in no row; left out")
        )
    return draft


def _choose(root: Path, draft: Draft) -> Lists:
    """Return the file that lists the images, or those of the splits.

    Raises:
        DataError: If there is none, or several that are not called like splits.
    """
    if root.is_file():
        return {None: require_columns(root)}
    files = _files(root)
    named = {SPLIT_NAMES[path.stem.lower()]: path for path in files if path.stem.lower() in SPLIT_NAMES}
    if "train" in named:
        lists: dict[Split | None, Columns] = {}
        for split, path in named.items():
            columns = require_columns(path) if split != "test" else find_columns(path)
            if columns is None or columns.label is None:
                draft.warnings.append(Problem("no labels", path, "has no column of labels; left out"))
            else:
                lists[split] = columns
        return lists if len(lists) > 1 else {None: lists["train"]}
    labelled = _labelled(root)
    lists_of_images = [columns for columns in labelled if _names_images(columns)] or labelled
    if len(lists_of_images) == 1:
        return {None: lists_of_images[0]}
    if lists_of_images:
        found = ", ".join(columns.path.name for columns in lists_of_images)
        raise DataError(f"{root}: several files list images: {found}", "name one: DATA/FILE.csv")
    if len(files) == 1:
        return {None: require_columns(files[0])}
    raise DataError(f"{root}: no CSV file lists images\nfound: {describe_folder(root)}", LAYOUTS)


def _files(root: Path) -> list[Path]:
    return [
        path
        for path in files_in(root)
        if path.suffix.lower() in SUFFIXES and path.stem.lower() not in NO_LISTS
    ]


def _labelled(root: Path) -> list[Columns]:
    """Return the files with a column of images and one of labels."""
    found = []
    for path in _files(root):
        try:
            columns = find_columns(path)
        except DataError:  # a table of something else
            continue
        if columns is not None and columns.label is not None:
            found.append(columns)
    return found


def _names_images(columns: Columns, endings: Sequence[str] = ENDINGS) -> bool:
    rows = (row for _, row in zip(range(TRIED), columns.rows(), strict=False))
    return any(lies_near(columns.path.parent, row[columns.image], endings) for _, row in rows)


def _has_class_folders(root: Path) -> bool:
    # train_images/ and test_images/ are folders of images and no classes.
    subs = [sub for sub in subfolders(root) if not sub.name.lower().startswith(tuple(SPLIT_NAMES))]
    return bool(side_folders(root)) or sum(any(list_images(sub)) for sub in subs) > 1


def _sort(names: Collection[str]) -> tuple[str, ...]:
    """Return the classes in order: by number where all are numbers, so that 10 comes after 9."""
    if all(name.removeprefix("-").isdecimal() for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


FORMAT = Format("csv", "classify", fits, read)
