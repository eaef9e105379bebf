"""YOLO's segmentation: a data.yaml, and a text file of outlines for each image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from surgery.artifact.errors import DataError
from surgery.data.folders import describe_folder, files_in, list_images
from surgery.data.formats.class_lists import read_lines
from surgery.data.formats.draft import LAYOUTS, Draft, Format
from surgery.data.formats.yolo_file import Spec, find_file, read_spec
from surgery.data.outlines import YoloMask, find_box, name_background
from surgery.data.table import Item, Problem, Split

LOOKED_AT = 100
"""Label files of a split that are searched for boxes before all of them are checked."""


def fits(root: Path) -> bool:
    """Whether it is a YAML file, or holds one with names and train."""
    try:
        return find_file(root) is not None
    except DataError:  # a data.yaml that is broken is still one
        return True


def read(root: Path) -> Draft:
    """Read the images that the YAML file points at, and where their outlines are.

    Raises:
        DataError: If the file does not do or points at nothing, or the labels are boxes.
    """
    path = find_file(root)
    if path is None:
        raise DataError(f"{root}: no data.yaml with names and train\nfound: {describe_folder(root)}", LAYOUTS)
    spec = read_spec(path)
    draft = Draft("segment", f"{path.name}: {', '.join(spec.entries)}")
    draft.classes = (name_background(spec.names), *spec.names)
    used: set[Path] = set()
    for split in spec.entries:
        labels = {image: _label_of(image, spec) for image in _list_split(spec, split, draft)}
        written = [label for label in labels.values() if label.is_file()]
        if not written and split == "test":
            if labels:
                draft.warnings.append(Problem("no labels", path, f"{len(labels)} images of test; left out"))
            continue
        if not written and labels:
            raise DataError(
                f"{path}: none of the {len(labels)} images of {split} has labels",
                f"{next(iter(labels))} should have {next(iter(labels.values()))}",
            )
        _refuse_boxes(written)
        used.update(labels.values())
        draft.splits |= {split}
        draft.items += [
            Item(image, None, YoloMask(label, image, len(spec.names)), split)
            for image, label in labels.items()
        ]
    for folder in sorted({label.parent for label in used if label.parent.is_dir()}):
        texts = [path for path in files_in(folder) if path.suffix == ".txt" and path.name != "classes.txt"]
        left = len(set(texts) - used)
        if left:
            message = f"{left} label files have no image; left out"
            draft.warnings.append(Problem("label without image", folder, message))
    return draft


def _list_split(spec: Spec, split: Split, draft: Draft) -> Iterator[Path]:
    for entry in spec.entries[split]:
        place = spec.find(entry)
        if place is None and split == "test":
            draft.warnings.append(Problem("no test", spec.path, f"{entry} is not there; left out"))
        elif place is None:
            looked = " or ".join(f"{base}/" for base in spec.bases)
            raise DataError(f"{spec.path}: {split} is {entry!r}, which is not in {looked}", "mend the path")
        elif place.is_dir():
            yield from list_images(place)
        else:
            yield from _read_list(place, spec, draft)


def _read_list(path: Path, spec: Spec, draft: Draft) -> Iterator[Path]:
    for number, line in enumerate(read_lines(path), start=1):
        image = spec.find(line, path.parent) if line else None
        if image is not None:
            yield image
        elif line:
            message = f"line {number}: there is no {line!r}"
            draft.problems.append(Problem("image missing", path, message, left_out=True))


def _label_of(image: Path, spec: Spec) -> Path:
    """Return the text file of an image: labels/ stands for the last images/ in its path, if there is one."""
    base = next((base for base in spec.bases if image.is_relative_to(base)), Path(image.anchor))
    parts = list(image.relative_to(base).with_suffix(".txt").parts)
    places = [i for i, part in enumerate(parts[:-1]) if part.lower() == "images"]
    if places:
        parts[places[-1]] = "labels"
    return base.joinpath(*parts)


def _refuse_boxes(labels: Sequence[Path]) -> None:
    for label in labels[:LOOKED_AT]:
        number = find_box(label.read_text("utf-8-sig", errors="replace"))
        if number is not None:
            raise DataError(
                f"{label} line {number}: 5 numbers are a box, not an outline",
                "masks need outlines: export the data as YOLO segmentation",
            )


FORMAT = Format("yolo", "segment", fits, read)
