"""A folder per class."""

from __future__ import annotations

from pathlib import Path

from surgery.artifact.errors import DataError
from surgery.data.folders import (
    IMAGE_SUFFIXES,
    child,
    class_name,
    describe_folder,
    files_in,
    list_images,
    subfolders,
)
from surgery.data.formats.draft import LAYOUTS, Draft, Format
from surgery.data.formats.sides import SPLIT_NAMES, find_sides, given_splits, level, require_train, unread
from surgery.data.table import Item, Problem


def fits(root: Path) -> bool:
    """Whether it is a folder; what is no other format is taken for class folders."""
    return root.is_dir()


def read(root: Path) -> Draft:
    """Read class folders.

    Raises:
        DataError: If there are no two of them.
    """
    sides = find_sides(root)
    require_train(root, sides)
    draft = Draft("classify", f"{level(sides)}<class>/", splits=given_splits(sides))
    draft.warnings += unread(root, sides)
    for side in sides.values():
        if child(side, "images") is not None:
            raise DataError(f"{side}: holds images/ and no masks/\nfound: {describe_folder(side)}", LAYOUTS)
    folders = {split: subfolders(side) for split, side in sides.items()}
    if None in folders:
        folders[None] = _leave_test_out(folders[None], draft)
    names = sorted({class_name(folder) for each in folders.values() for folder in each})
    if len(names) < 2:
        raise DataError(
            f"{root}: one class folder only ({names[0]}); two classes or more are needed\n"
            f"found: {describe_folder(root)}",
            LAYOUTS,
        )
    draft.classes = tuple(names)
    for split, side in sides.items():
        for folder in folders[split]:
            label = names.index(class_name(folder))
            images = list(list_images(folder, draft.warnings))
            draft.items += [Item(path, label, None, split or "train") for path in images]
            if not images:
                draft.warnings.append(Problem("empty folder", folder, "holds no images"))
            for sub in subfolders(folder):
                message = f"its images count as {names[label]!r}, the class folder it lies in"
                draft.warnings.append(Problem("nested folder", sub, message))
        for path in files_in(side):
            if path.suffix.lower() in IMAGE_SUFFIXES:
                message = "lies beside the class folders and belongs to none; left out"
                draft.warnings.append(Problem("stray file", path, message))
    return draft


def _leave_test_out(folders: list[Path], draft: Draft) -> list[Path]:
    """Return the class folders without one of test images that nobody has labelled, where two are left."""
    tests = [folder for folder in folders if SPLIT_NAMES.get(folder.name.lower()) == "test"]
    classes = [folder for folder in folders if folder not in tests]
    if len(classes) < 2:
        return folders
    for folder in tests:
        message = "is a test split without labels and is left out; a class of that name needs another one"
        draft.warnings.append(Problem("folder not read", folder, message))
    return classes


FORMAT = Format("folders", "classify", fits, read)
