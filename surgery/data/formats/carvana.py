"""A folder of images beside one of masks with the same name and an ending, as Kaggle's Carvana has it."""

from __future__ import annotations

from pathlib import Path

from surgery.artifact.errors import DataError
from surgery.data.folders import child, describe_folder, files_in, join_names, list_images, subfolders
from surgery.data.formats.draft import LAYOUTS, Draft, Format
from surgery.data.formats.mask_files import choose_source
from surgery.data.formats.pairing import pair_folders
from surgery.data.formats.sides import SPLIT_NAMES, require_train
from surgery.data.table import Item, Problem, Split

ENDINGS = ("_masks", "_mask", "_labels", "annot")
"""What stands after the images' folder in the name of the masks': Carvana's, and two of CamVid's."""

Folders = dict[Split, tuple[Path, Path]]


def fits(root: Path) -> bool:
    """Whether a split's folder has one of its masks beside it."""
    return root.is_dir() and any(
        _masks_of(sub) is not None for sub in subfolders(root) if sub.name.lower() in SPLIT_NAMES
    )


def read(root: Path) -> Draft:
    """Read the images of each split that has masks.

    Raises:
        DataError: If there is no train, or nothing names the classes.
    """
    found: Folders = {}
    masked: list[Path] = []
    for sub in subfolders(root):
        split, masks = SPLIT_NAMES.get(sub.name.lower()), _masks_of(sub)
        if split is None or masks is None:
            continue
        if split in found:
            both = join_names((found[split][0], sub))
            raise DataError(f"{root}: {both} would both be the {split} split", "keep one of them")
        found[split] = (sub, masks)
        masked += [sub, masks]
    if not found:
        raise DataError(f"{root}: no train_masks/ beside train/\nfound: {describe_folder(root)}", LAYOUTS)
    require_train(root, {split: folders[0] for split, folders in found.items()})
    layout = ", ".join(f"{images.name}/ + {masks.name}/" for images, masks in found.values())
    draft = Draft("segment", layout, splits=frozenset(found))
    for folder in subfolders(root):
        if folder not in masked and any(list_images(folder)):
            draft.warnings.append(Problem("folder not read", folder, "has no folder of masks; left out"))
    rows = []
    for split, (images, masks) in found.items():
        pairs = pair_folders(_unwrap(images), _unwrap(masks), draft)
        rows += [(image, mask, split) for image, mask in pairs]
    files = [mask for _, mask, _ in rows if mask is not None]
    draft.classes, source = choose_source(root, [root, *masked], files)
    draft.items = [
        Item(image, None, source(mask) if mask is not None else None, split) for image, mask, split in rows
    ]
    return draft


def _masks_of(folder: Path) -> Path | None:
    """Return the folder of masks beside a folder of images."""
    beside = (child(folder.parent, f"{folder.name.lower()}{ending}") for ending in ENDINGS)
    return next((masks for masks in beside if masks is not None and any(list_images(masks))), None)


def _unwrap(folder: Path) -> Path:
    """Return the folder of its own name within, where an archive was unpacked into one."""
    inner = child(folder, folder.name.lower())
    return inner if inner is not None and not files_in(folder) else folder


FORMAT = Format("carvana", "segment", fits, read)
