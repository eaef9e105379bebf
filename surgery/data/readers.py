"""Read a folder as it lies on disk into a table: class folders, or image and mask pairs."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from surgery.artifact.errors import DataError
from surgery.data.folders import (
    IMAGE_SUFFIXES,
    child,
    class_name,
    describe_folder,
    files_in,
    join_names,
    list_images,
    stem_of,
    subfolders,
)
from surgery.data.splits import describe_split, draw_val
from surgery.data.table import SPLITS, Item, Problem, Split, Table, Task

LAYOUTS = """Folders that are understood (with or without the train/val/test level):
  classify   DATA/train/<class>/*.jpg   DATA/val/<class>/*.jpg
  segment    DATA/train/images/*.jpg    DATA/train/masks/*.png   DATA/classes.txt (a name a line)"""

SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
MASK_ENDINGS = ("_mask", "-mask", ".mask")


def read_table(root: Path, task: str | None = None, val_share: float = 0.2, seed: int = 0) -> Table:
    """Read the dataset that lies in a folder.

    Args:
        root: The folder; its layout is found out.
        task: "classify", "segment", or None for what the layout says.
        val_share: Share of train drawn for validation where no val is given, 0–1.
        seed: Seed of that draw.

    Returns:
        The table; what is wrong with single files is left to `check_table`.

    Raises:
        DataError: If the folder is not there, nothing fits, or `task` contradicts the layout.
    """
    root = Path(root)
    try:
        _require_folder(root)
        sides = _find_sides(root)
        found: Task = "segment" if any(_is_pairs(folder) for folder in sides.values()) else "classify"
        if task is not None and task != found:
            raise DataError(
                f"{root}: is laid out for {found}, but {task} is asked for",
                f"give data that is laid out for {task}.\n{LAYOUTS}",
            )
        draft = _read_pairs(root, sides) if found == "segment" else _read_classes(root, sides)
    except OSError as error:
        raise DataError(f"{root}: cannot be read: {error}", "check the folder's rights") from error
    return _finish(root, found, sides, draft, val_share, seed)


@dataclass
class _Draft:
    """What was collected so far, before the split is settled."""

    classes: tuple[str, ...]
    items: list[Item]
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)


def _finish(
    root: Path,
    task: Task,
    sides: dict[Split | None, Path],
    draft: _Draft,
    val_share: float,
    seed: int,
) -> Table:
    if not draft.items:
        raise DataError(f"{root}: no images in it\nfound: {describe_folder(root)}", LAYOUTS)
    if None not in sides and "train" not in sides:
        raise DataError(
            f"{root}: no train folder beside {join_names(sides.values())}",
            "add DATA/train, or put everything directly under DATA to have a split drawn",
        )
    if None not in sides:
        draft.warnings += _unread(root, sides)
    items = sorted(draft.items, key=lambda item: item.image.relative_to(root).as_posix())
    rule = "given"
    if "val" not in sides:
        items = draw_val(items, val_share, seed)
        rule = describe_split(items, val_share, seed, whole=None in sides)
    level = "" if None in sides else "{" + ",".join(s for s in SPLITS if s in sides) + "}/"
    return Table(
        task=task,
        root=root,
        classes=draft.classes,
        items=tuple(items),
        layout=f"{level}<class>/" if task == "classify" else f"{level}images/ + {level}masks/",
        split_rule=rule,
        problems=tuple(draft.problems),
        warnings=tuple(draft.warnings),
    )


# --- finding the layout ---------------------------------------------------------------------------


def _require_folder(root: Path) -> None:
    if not root.exists():
        parent = next(folder for folder in root.absolute().parents if folder.is_dir())
        raise DataError(
            f"{root}: there is no such folder",
            f"nearest folder that is there: {parent}, with {describe_folder(parent)}",
        )
    if not root.is_dir():
        raise DataError(f"{root}: is a file, not a folder", "name a folder; unpack an archive first")


def _find_sides(root: Path) -> dict[Split | None, Path]:
    """Return the folder of each split; {None: root} where there is no train/val/test level."""
    sides: dict[Split | None, Path] = {}
    for folder in subfolders(root):
        split = SPLIT_NAMES.get(folder.name.lower())
        if split is None or not _is_side(folder):
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
    inner = [folder for folder in subfolders(root) if _is_pairs(folder) or _has_sides(folder)]
    if inner and not _is_pairs(root):
        raise DataError(
            f"{root}: holds whole datasets ({join_names(inner)}), not one",
            f"name one of them: {inner[0]}",
        )
    return {None: root}


def _is_side(folder: Path) -> bool:
    # A class may be called "train"; the images of a split lie one folder deeper.
    return any(any(list_images(sub)) for sub in subfolders(folder))


def _has_sides(folder: Path) -> bool:
    return any(sub.name.lower() in SPLIT_NAMES and _is_side(sub) for sub in subfolders(folder))


def _is_pairs(folder: Path) -> bool:
    return child(folder, "images") is not None and child(folder, "masks") is not None


# --- class folders --------------------------------------------------------------------------------


def _read_classes(root: Path, sides: dict[Split | None, Path]) -> _Draft:
    draft = _Draft((), [])
    for side in sides.values():
        if child(side, "images") is not None:
            raise DataError(f"{side}: holds images/ and no masks/\nfound: {describe_folder(side)}", LAYOUTS)
    names = sorted({class_name(f) for side in sides.values() for f in subfolders(side)})
    if len(names) < 2:
        raise DataError(
            f"{root}: one class folder only ({names[0]}); two classes or more are needed\n"
            f"found: {describe_folder(root)}",
            LAYOUTS,
        )
    draft.classes = tuple(names)
    for split, side in sides.items():
        for folder in subfolders(side):
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


def _unread(root: Path, sides: dict[Split | None, Path]) -> list[Problem]:
    return [
        Problem("folder not read", folder, f"lies beside {join_names(sides.values())} and is left out")
        for folder in subfolders(root)
        if folder not in sides.values() and any(list_images(folder))
    ]


# --- image and mask pairs -------------------------------------------------------------------------


def _read_pairs(root: Path, sides: dict[Split | None, Path]) -> _Draft:
    draft = _Draft(_read_class_names(root, sides), [])
    for split, side in sides.items():
        images_folder, masks_folder = child(side, "images"), child(side, "masks")
        if images_folder is None:
            message = f"no images/ in it; found {describe_folder(side)}"
            draft.problems.append(Problem("no images", side, message))
            continue
        images = list(list_images(images_folder, draft.warnings))
        masks = list(list_images(masks_folder, draft.warnings)) if masks_folder else []
        pairs = _pair(images, images_folder, masks, masks_folder or images_folder, draft)
        draft.items += [Item(image, None, mask, split or "train") for image, mask in pairs]
        used = {mask for _, mask in pairs}
        for mask in masks:
            if mask not in used and not any(mask == problem.path for problem in draft.problems):
                message = f"no image in {images_folder} has its name; left out"
                draft.warnings.append(Problem("mask without image", mask, message))
    return draft


def _pair(
    images: list[Path], images_folder: Path, masks: list[Path], masks_folder: Path, draft: _Draft
) -> list[tuple[Path, Path | None]]:
    """Return each image with its mask, named alike or with `_mask` at the end."""
    own = {stem_of(image, images_folder) for image in images}
    named: dict[str, list[Path]] = defaultdict(list)
    for mask in masks:
        stem = stem_of(mask, masks_folder)
        # gas_mask.png belongs to gas.jpg, unless there is a gas_mask.jpg.
        named[stem if stem in own else _without_ending(stem)].append(mask)
    pairs: list[tuple[Path, Path | None]] = []
    taken: dict[str, Path] = {}
    for image in images:
        stem = stem_of(image, images_folder)
        found = named.get(stem, [])
        if found and stem in taken:
            message = f"shares the mask {found[0].name} with {taken[stem].name}"
            draft.problems.append(Problem("ambiguous mask", image, message))
            continue
        for second in found[1:]:
            message = f"a second mask of {image.name}; the first is {found[0].name}"
            draft.problems.append(Problem("ambiguous mask", second, message))
        taken[stem] = image
        pairs.append((image, found[0] if found else None))
    return pairs


def _without_ending(stem: str) -> str:
    endings = [ending for ending in MASK_ENDINGS if stem.lower().endswith(ending)]
    return stem[: -len(endings[0])] if endings else stem


def _read_class_names(root: Path, sides: dict[Split | None, Path]) -> tuple[str, ...]:
    places = [root, *(side for side in sides.values() if side != root)]
    files = [f for f in (folder / "classes.txt" for folder in places) if f.is_file()]
    if not files:
        raise DataError(
            f"{root}: masks, but no classes.txt that names their values",
            f"write {root / 'classes.txt'}: one name a line, the first line for mask value 0",
        )
    names = _parse_class_names(files[0])
    for other in files[1:]:
        if _parse_class_names(other) != names:
            raise DataError(f"{other}: names other classes than {files[0]}", "keep one of them")
    return names


def _parse_class_names(path: Path) -> tuple[str, ...]:
    try:
        lines = [line.strip() for line in path.read_text("utf-8-sig").rstrip().splitlines()]
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text", "save it as UTF-8") from error
    for number, line in enumerate(lines, start=1):
        if not line:
            raise DataError(
                f"{path} line {number}: empty, but line {number} names mask value {number - 1}",
                "give every value a name; leave it out of training with --ignore NAME",
            )
        if line in lines[: number - 1]:
            first = lines.index(line) + 1
            raise DataError(
                f"{path} line {number}: {line!r} is named on line {first} already",
                "give every mask value its own name",
            )
    if not lines:
        raise DataError(f"{path}: is empty", "write one class name a line, from mask value 0 on")
    return tuple(unicodedata.normalize("NFC", line) for line in lines)
