"""Images and the mask files that carry their names."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from surgery.data.folders import list_images, stem_of
from surgery.data.formats.draft import Draft
from surgery.data.table import Problem

MASK_ENDINGS = ("_mask", "-mask", ".mask", "_L")
"""What may stand after an image's name in the name of its mask; the last is CamVid's."""

Pair = tuple[Path, Path | None]
"""An image and its mask, if it has one."""


def pair_folders(images_folder: Path, masks_folder: Path | None, draft: Draft) -> list[Pair]:
    """Return each image of one folder with its mask in another; what does not fit goes to the draft."""
    images = list(list_images(images_folder, draft.warnings))
    masks = list(list_images(masks_folder, draft.warnings)) if masks_folder else []
    pairs = _pair(images, images_folder, masks, masks_folder or images_folder, draft)
    used = {mask for _, mask in pairs}
    faulty = {problem.path for problem in draft.problems}
    for mask in masks:
        if mask not in used and mask not in faulty:
            message = f"no image in {images_folder} has its name; left out"
            draft.warnings.append(Problem("mask without image", mask, message))
    return pairs


def _pair(
    images: list[Path], images_folder: Path, masks: list[Path], masks_folder: Path, draft: Draft
) -> list[Pair]:
    """Return each image with its mask, named alike or with `_mask` at the end."""
    own = {stem_of(image, images_folder) for image in images}
    named: dict[str, list[Path]] = defaultdict(list)
    for mask in masks:
        stem = stem_of(mask, masks_folder)
        # gas_mask.png belongs to gas.jpg, unless there is a gas_mask.jpg.
        named[stem if stem in own else _without_ending(stem)].append(mask)
    pairs: list[Pair] = []
    taken: dict[str, Path] = {}
    for image in images:
        stem = stem_of(image, images_folder)
        found = named.get(stem, [])
        if found and stem in taken:
            message = f"shares the mask {found[0].name} with {taken[stem].name}"
            draft.problems.append(Problem("ambiguous mask", image, message, left_out=True))
            continue
        for second in found[1:]:
            message = f"a second mask of {image.name}; the first is {found[0].name}"
            draft.problems.append(Problem("ambiguous mask", second, message, left_out=True))
        taken[stem] = image
        pairs.append((image, found[0] if found else None))
    return pairs


def _without_ending(stem: str) -> str:
    endings = [ending for ending in MASK_ENDINGS if stem.lower().endswith(ending.lower())]
    return stem[: -len(endings[0])] if endings else stem
