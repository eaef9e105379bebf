"""Images and masks of the same name, in folders called images/ and masks/."""

from __future__ import annotations

from pathlib import Path

from surgery.data.folders import child, describe_folder
from surgery.data.formats.draft import Draft, Format
from surgery.data.formats.mask_files import choose_source
from surgery.data.formats.pairing import pair_folders
from surgery.data.formats.sides import (
    find_sides,
    given_splits,
    is_pairs,
    level,
    require_train,
    side_folders,
    unread,
)
from surgery.data.table import Item, Problem


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
    draft.warnings += unread(root, sides)
    found = []
    for split, side in sides.items():
        images_folder = child(side, "images")
        if images_folder is None:
            message = f"no images/ in it; found {describe_folder(side)}"
            draft.problems.append(Problem("no images", side, message))
            continue
        pairs = pair_folders(images_folder, child(side, "masks"), draft)
        found += [(image, mask, split or "train") for image, mask in pairs]
    places = [root, *(side for side in sides.values() if side != root)]
    masks = [mask for _, mask, _ in found if mask is not None]
    draft.classes, source = choose_source(root, places, masks)
    draft.items = [
        Item(image, None, source(mask) if mask is not None else None, split) for image, mask, split in found
    ]
    return draft


FORMAT = Format("pairs", "segment", fits, read)
