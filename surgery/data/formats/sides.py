"""The train, val and test folders of a data set."""

from __future__ import annotations

from pathlib import Path

from surgery.artifact.errors import DataError
from surgery.data.folders import child, describe_folder, join_names, list_images, subfolders
from surgery.data.formats.draft import LAYOUTS
from surgery.data.table import SPLITS, Problem, Split

SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}

Sides = dict[Split | None, Path]


def find_sides(root: Path) -> Sides:
    """Return the folder of each split; {None: root} where there is no train/val/test level."""
    sides: Sides = {}
    for folder in subfolders(root):
        split = SPLIT_NAMES.get(folder.name.lower())
        if split is None or not is_side(folder):
            continue
        if split in sides:
            raise DataError(
                f"{root}: both {sides[split].name}/ and {folder.name}/ would be the {split} split",
                "keep one of them",
            )
        sides[split] = folder
    if sides:
        return sides
    if not subfolders(root) or not any(list_images(root)):
        raise DataError(f"{root}: nothing that fits\nfound: {describe_folder(root)}", LAYOUTS)
    inner = [folder for folder in subfolders(root) if is_pairs(folder) or side_folders(folder)]
    if inner and not is_pairs(root):
        raise DataError(
            f"{root}: holds whole datasets ({join_names(inner)}), not one",
            f"name one of them: {inner[0]}",
        )
    return {None: root}


def side_folders(root: Path) -> list[Path]:
    """Return the folders that are called like a split and hold folders of images."""
    return [sub for sub in subfolders(root) if sub.name.lower() in SPLIT_NAMES and is_side(sub)]


def is_side(folder: Path) -> bool:
    # A class may be called "train"; the images of a split lie one folder deeper.
    return any(any(list_images(sub)) for sub in subfolders(folder))


def is_pairs(folder: Path) -> bool:
    return child(folder, "images") is not None and child(folder, "masks") is not None


def require_train(root: Path, sides: Sides) -> None:
    """Refuse splits without a training part.

    Raises:
        DataError: If there is a split level and no train in it.
    """
    if None not in sides and "train" not in sides:
        raise DataError(
            f"{root}: no train folder beside {join_names(sides.values())}",
            "add DATA/train, or put everything directly under DATA to have a split drawn",
        )


def given_splits(sides: Sides) -> frozenset[Split]:
    """Return the splits that the folders name."""
    return frozenset(split for split in sides if split is not None)


def level(sides: Sides) -> str:
    """Return the split level in words, such as `{train,val}/`."""
    return "" if None in sides else "{" + ",".join(s for s in SPLITS if s in sides) + "}/"


def unread(root: Path, sides: Sides) -> list[Problem]:
    """Return a warning for each folder of images that lies beside the splits."""
    return [
        Problem("folder not read", folder, f"lies beside {join_names(sides.values())} and is left out")
        for folder in subfolders(root)
        if None not in sides and folder not in sides.values() and any(list_images(folder))
    ]
