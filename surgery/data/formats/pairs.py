"""Images and masks of the same name."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from pathlib import Path

from surgery.artifact.errors import DataError
from surgery.data.folders import child, describe_folder, list_images, stem_of
from surgery.data.formats.draft import Draft, Format
from surgery.data.formats.sides import (
    Sides,
    find_sides,
    given_splits,
    is_pairs,
    level,
    require_train,
    side_folders,
    unread,
)
from surgery.data.masks import IndexMask
from surgery.data.table import Item, Problem

MASK_ENDINGS = ("_mask", "-mask", ".mask")


def fits(root: Path) -> bool:
    """Whether there is images/ beside masks/, below the splits or at the top."""
    return root.is_dir() and (is_pairs(root) or any(is_pairs(side) for side in side_folders(root)))


def read(root: Path) -> Draft:
    """Read images and their masks.

    Raises:
        DataError: If nothing names the classes.
    """
    sides = find_sides(root)
    require_train(root, sides)
    draft = Draft("segment", f"{level(sides)}images/ + {level(sides)}masks/", splits=given_splits(sides))
    draft.classes = _read_class_names(root, sides)
    draft.warnings += unread(root, sides)
    for split, side in sides.items():
        images_folder, masks_folder = child(side, "images"), child(side, "masks")
        if images_folder is None:
            message = f"no images/ in it; found {describe_folder(side)}"
            draft.problems.append(Problem("no images", side, message))
            continue
        images = list(list_images(images_folder, draft.warnings))
        masks = list(list_images(masks_folder, draft.warnings)) if masks_folder else []
        pairs = _pair(images, images_folder, masks, masks_folder or images_folder, draft)
        draft.items += [
            Item(image, None, None if mask is None else IndexMask(mask), split or "train")
            for image, mask in pairs
        ]
        used = {mask for _, mask in pairs}
        for mask in masks:
            if mask not in used and not any(mask == problem.path for problem in draft.problems):
                message = f"no image in {images_folder} has its name; left out"
                draft.warnings.append(Problem("mask without image", mask, message))
    return draft


def _pair(
    images: list[Path], images_folder: Path, masks: list[Path], masks_folder: Path, draft: Draft
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


def _read_class_names(root: Path, sides: Sides) -> tuple[str, ...]:
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


FORMAT = Format("pairs", "segment", fits, read)
