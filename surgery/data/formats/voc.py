"""Pascal VOC's segmentation, and what CVAT exports as VOC or as segmentation masks."""

from __future__ import annotations

from pathlib import Path

from surgery.artifact.errors import DataError
from surgery.data.folders import child, describe_folder, files_in, list_images, stem_of, subfolders
from surgery.data.formats.class_lists import find_class_lists, read_lines
from surgery.data.formats.draft import LAYOUTS, Draft, Format
from surgery.data.formats.mask_files import MakeMask, choose_source, look_at
from surgery.data.formats.sides import SPLIT_NAMES
from surgery.data.masks import BinaryMask, IndexMask
from surgery.data.table import SPLITS, Item, Problem, Split

CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip
"""VOC's own, by mask value."""
BORDER = 255
"""Mask value of the borders between things, which belong to no class."""
BORDER_COLOUR = (224, 224, 192)
"""The same in masks that were painted with VOC's palette."""

Files = dict[str, Path]
"""Files by their name without its ending."""


def fits(root: Path) -> bool:
    """Whether there is JPEGImages/ beside SegmentationClass/, perhaps below VOCdevkit/VOC2012."""
    return root.is_dir() and bool(_find_years(root))


def read(root: Path) -> Draft:
    """Read the images that the lists name, or all that have a mask where there are no lists.

    Raises:
        DataError: If several years lie in the folder, or nothing names the values of the masks.
    """
    years = _find_years(root)
    if len(years) != 1:
        raise DataError(
            f"{root}: not one folder with JPEGImages/ and SegmentationClass/\n"
            f"found: {', '.join(map(str, years)) or describe_folder(root)}",
            f"name one of them: {years[0]}" if years else LAYOUTS,
        )
    year = years[0]
    images, masks = _files(year, "jpegimages"), _files(year, "segmentationclass")
    draft = Draft("segment", "JPEGImages/ + SegmentationClass/")
    rows = _read_lists(year, images, masks, draft) or [(stem, "train") for stem in images if stem in masks]
    left = len(set(images) - {stem for stem, _ in rows})
    if left:
        message = f"{left} images have no mask or stand in no list; left out"
        draft.warnings.append(Problem("images not listed", year, message))
    listed = [masks[stem] for stem, _ in rows if stem in masks]
    draft.classes, source = _choose_source(root, year, listed)
    if source is not BinaryMask and len(draft.classes) <= BORDER:
        draft.ignored_values = (BORDER,)
    for stem, split in rows:
        mask = source(masks[stem]) if stem in masks else None
        draft.items.append(Item(images[stem], None, mask, split))
    return draft


def _find_years(root: Path) -> list[Path]:
    kits = [sub for sub in subfolders(root) if sub.name.lower().startswith("voc")]
    deeper = [sub for kit in kits for sub in subfolders(kit) if sub.name.lower().startswith("voc")]
    return [
        folder
        for folder in (root, *kits, *deeper)
        if child(folder, "jpegimages") and child(folder, "segmentationclass")
    ]


def _files(year: Path, name: str) -> Files:
    folder = child(year, name)
    return {stem_of(path, folder): path for path in list_images(folder)} if folder else {}


def _read_lists(year: Path, images: Files, masks: Files, draft: Draft) -> list[tuple[str, Split]]:
    """Return the listed images and their splits; nothing where there are no lists."""
    sets = child(year, "imagesets")
    folder = child(sets, "segmentation") if sets else None
    lists = (
        {path.stem.lower(): path for path in files_in(folder) if path.suffix.lower() == ".txt"}
        if folder
        else {}
    )
    by_split = {
        split: _read_names(lists.pop(name), images, draft)
        for name, split in SPLIT_NAMES.items()
        if name in lists
    }
    if by_split and "train" not in by_split and "trainval" in lists:
        others = {stem for stems in by_split.values() for stem in stems}
        names = _read_names(lists["trainval"], images, draft)
        by_split["train"] = [stem for stem in names if stem not in others]
    if not by_split:  # a list of everything: trainval.txt alone, or the default.txt of CVAT
        every = (stem for path in lists.values() for stem in _read_names(path, images, draft))
        return [(stem, "train") for stem in dict.fromkeys(every)]
    if "test" in by_split and not any(stem in masks for stem in by_split["test"]):
        message = f"{len(by_split.pop('test'))} images without masks; left out"
        draft.warnings.append(Problem("test without masks", year, message))
    draft.splits = frozenset(by_split)
    draft.layout += f", ImageSets/Segmentation/{{{','.join(s for s in SPLITS if s in by_split)}}}.txt"
    return [(stem, split) for split, stems in by_split.items() for stem in stems]


def _read_names(path: Path, images: Files, draft: Draft) -> list[str]:
    names = []
    for number, line in enumerate(read_lines(path), start=1):
        if line and line not in images:
            message = f"line {number}: JPEGImages/ holds no {line!r}"
            draft.problems.append(Problem("image missing", path, message, left_out=True))
        elif line:
            names.append(line)
    return names


def _choose_source(root: Path, year: Path, masks: list[Path]) -> tuple[tuple[str, ...], MakeMask]:
    places = [root] if year == root else [root, year]
    if not find_class_lists(places):
        seen = look_at(masks)
        # Borders surround things: where there is nothing but borders, 255 means something else.
        if (
            not seen.mixed
            and seen.values != {0, BORDER}
            and seen.values - {BORDER} <= set(range(len(CLASSES)))
        ):
            return CLASSES, IndexMask
    return choose_source(root, places, masks, ((BORDER_COLOUR, BORDER),))


FORMAT = Format("voc", "segment", fits, read)
