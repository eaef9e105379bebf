"""COCO's instance segmentation, and what Roboflow and CVAT export as COCO."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from surgery.artifact.errors import DataError
from surgery.artifact.image import MAX_PIXELS
from surgery.data.folders import describe_folder, list_images
from surgery.data.formats.coco_files import Source, find_folder, find_image, find_sources, load
from surgery.data.formats.draft import LAYOUTS, Draft, Format
from surgery.data.formats.sides import require_train
from surgery.data.outlines import CocoMask, name_background
from surgery.data.table import Item, Problem

Entries = dict[str, list[dict[str, Any]]]
"""Images, annotations and categories of a JSON file."""


def fits(root: Path) -> bool:
    """Whether there is annotations/instances_*.json, train/_annotations.coco.json, or a JSON and images/."""
    return root.is_dir() and bool(find_sources(root))


def read(root: Path) -> Draft:
    """Read the images and annotations of each JSON file.

    Raises:
        DataError: If a file is none of COCO's, or its annotations are boxes only.
    """
    sources = find_sources(root)
    if not sources:
        raise DataError(f"{root}: no JSON file of COCO's\nfound: {describe_folder(root)}", LAYOUTS)
    require_train(root, {source.split: source.path for source in sources})
    draft = Draft("segment", ", ".join(_relative(root, source.path) for source in sources))
    loaded: list[tuple[Source, Entries]] = []
    for source in sources:
        entries = load(source.path)
        if entries["annotations"]:
            _require_outlines(source.path, entries)
            loaded.append((source, entries))
        elif source.split == "test":
            draft.warnings.append(Problem("no annotations", source.path, "left out"))
        else:
            raise DataError(f"{source.path}: holds no annotations", "export it with annotations")
    draft.splits = frozenset(source.split for source, _ in loaded if source.split is not None)
    indices, names = _number_categories(loaded)
    draft.classes = (name_background(names), *names)
    folders = {_add_items(source, entries, indices, draft) for source, entries in loaded}
    listed = {item.image for item in draft.items}
    for folder in sorted(folders):
        left = sum(image not in listed for image in list_images(folder))
        if left:
            message = f"{left} images stand in no JSON file; left out"
            draft.warnings.append(Problem("images not listed", folder, message))
    return draft


def _require_outlines(path: Path, entries: Entries) -> None:
    boxes = [each for each in entries["annotations"] if not each.get("segmentation")]
    if boxes:
        image = boxes[0]["image_id"]
        raise DataError(
            f"{path}: {len(boxes)} of {len(entries['annotations'])} annotations have no segmentation, "
            f"the first one in image {image!r}: boxes alone make no masks",
            "export polygons or masks, or remove these annotations",
        )


def _number_categories(loaded: Sequence[tuple[Source, Entries]]) -> tuple[dict[Any, int], list[str]]:
    """Return the mask value of each category's id, and the names from mask value 1 on.

    Raises:
        DataError: If an id has two names.
    """
    names: dict[Any, str] = {}
    above: set[str] = set()
    used = {each["category_id"] for _, entries in loaded for each in entries["annotations"]}
    for source, entries in loaded:
        for category in entries["categories"]:
            name = str(category["name"])
            if names.setdefault(category["id"], name) != name:
                other = names[category["id"]]
                raise DataError(
                    f"{source.path}: category {category['id']} is {name!r}, but {other!r} in another file",
                    "export all splits with the same categories",
                )
            if category.get("supercategory") != name:
                above.add(str(category.get("supercategory")))
    # Roboflow puts the project's name above all categories, as a category of its own.
    ids = sorted((key for key in names if key in used or names[key] not in above), key=_by_number)
    order = list(dict.fromkeys(names[key] for key in ids))
    return {key: order.index(names[key]) + 1 for key in ids}, order


def _by_number(key: int | str) -> tuple[bool, int, str]:
    return isinstance(key, str), 0 if isinstance(key, str) else key, str(key)


def _add_items(source: Source, entries: Entries, indices: dict[Any, int], draft: Draft) -> Path:
    """Add the images of one file to the draft; returns the folder in which they lie."""
    path = source.path
    shapes = _collect_shapes(path, entries, indices, draft)
    folder = find_folder(source, [image["file_name"] for image in entries["images"]])
    for image in entries["images"]:
        key, name, height, width = (image[field] for field in ("id", "file_name", "height", "width"))
        found = find_image(folder, name)
        if found is None:
            message = f"image {name!r} (id {key}) is not in {folder.name}/"
            draft.problems.append(Problem("image missing", path, message, left_out=True))
        elif min(height, width) < 1 or height * width > MAX_PIXELS:
            message = f"image {name!r} (id {key}) has {width}×{height} pixels"
            draft.problems.append(Problem("impossible size", path, message, left_out=True))
        else:
            payload = json.dumps([height, width, shapes[key]], separators=(",", ":")).encode()
            draft.items.append(Item(found, None, CocoMask(path, key, payload), source.split or "train"))
    return folder


def _collect_shapes(
    path: Path, entries: Entries, indices: dict[Any, int], draft: Draft
) -> dict[int | str, list[tuple[int, Any]]]:
    """Return the shapes of each image by its id; annotations that cannot be placed go to the draft."""
    shapes: dict[int | str, list[tuple[int, Any]]] = {image["id"]: [] for image in entries["images"]}
    if len(shapes) < len(entries["images"]):
        raise DataError(f"{path}: two images have the same id", "export it again")
    lost = [each for each in entries["annotations"] if each["image_id"] not in shapes]
    unnamed = [each for each in entries["annotations"] if each["category_id"] not in indices]
    for faulty, field in ((lost, "image_id"), (unnamed, "category_id")):
        if faulty:
            message = f"{len(faulty)} annotations have an unlisted {field}, such as {faulty[0][field]!r}"
            # Without its image an annotation says nothing; without its class the image's mask is wrong.
            draft.problems.append(Problem("annotation without place", path, message, faulty is lost))
    thin = 0
    for each in entries["annotations"]:
        shape = each["segmentation"]
        if isinstance(shape, list):  # two points have no inside
            whole = [part for part in shape if not isinstance(part, list) or len(part) > 5]
            thin += len(shape) - len(whole)
            shape = whole
        if shape and each["image_id"] in shapes and each["category_id"] in indices:
            shapes[each["image_id"]].append((indices[each["category_id"]], shape))
    if thin:
        message = f"{thin} polygons of fewer than three points; left out"
        draft.warnings.append(Problem("polygon without inside", path, message))
    return shapes


def _relative(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


FORMAT = Format("coco", "segment", fits, read)
