"""The JSON files of COCO's format: where they lie, and what each holds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surgery.artifact.errors import DataError
from surgery.data.folders import child, files_in, subfolders
from surgery.data.formats.sides import SPLIT_NAMES
from surgery.data.table import Split

ROBOFLOW = "_annotations.coco.json"
HEAD_BYTES = 1 << 16
"""What is read of a JSON file to see whether it is COCO's."""
WANTED: dict[str, dict[str, type | tuple[type, ...]]] = {
    "images": {"id": (int, str), "file_name": str, "width": int, "height": int},
    "annotations": {"image_id": (int, str), "category_id": (int, str)},
    "categories": {"id": (int, str), "name": (int, str)},
}
"""What a file holds, and what every entry says."""

_NAMED = re.compile(r"(?:instances[_-])?([a-z]+?)[_-]?(?:\d{4})?")
_KEYS = re.compile(rb'"(?:images|annotations|categories)"\s*:')


@dataclass(frozen=True)
class Source:
    """One JSON file."""

    path: Path
    split: Split | None
    """The split of its images; None where there are no splits."""
    folders: tuple[Path, ...]
    """Where its images may lie, the likeliest folder first."""


def find_sources(root: Path) -> list[Source]:
    """Return the JSON files of a data set; reads no more than the beginning of each.

    Raises:
        DataError: If two of them would be the same split.
    """
    places = [(folder / ROBOFLOW, folder) for folder in (root, *subfolders(root))]
    exported = [(path, folder) for path, folder in places if path.is_file()]
    if exported:
        named = [
            Source(path, SPLIT_NAMES[folder.name.lower()], (folder,))
            for path, folder in exported
            if folder != root and folder.name.lower() in SPLIT_NAMES
        ]
        return _require_one_each(
            root, named or [Source(path, None, (folder,)) for path, folder in exported[:1]]
        )
    for folder in (child(root, "annotations"), root):
        files = [path for path in files_in(folder) if path.suffix.lower() == ".json"] if folder else []
        files = sorted(files, key=lambda path: not path.name.lower().startswith("instances"))[:20]
        found = [path for path in files if _looks_like_coco(path)]
        split = [Source(path, _split_of(path.stem), tuple(_folders(root, path))) for path in found]
        named = [source for source in split if source.split is not None]
        if named:
            return _require_one_each(root, named)
        if len(found) == 1 and (folder != root or child(root, "images") is not None):
            return split
    return []


def load(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Return images, annotations and categories of a file.

    Raises:
        DataError: If it is no JSON, or an entry lacks what it needs.
    """
    try:
        whole = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path}: is no JSON: {error}", "export it again") from error
    loaded: dict[str, list[dict[str, Any]]] = {}
    for key, fields in WANTED.items():
        entries = whole.get(key, []) if isinstance(whole, dict) else None
        if not isinstance(entries, list):
            raise DataError(
                f"{path}: holds no list {key!r}", "COCO's format has images, annotations, categories"
            )
        for number, entry in enumerate(entries):
            given = entry if isinstance(entry, dict) else {}
            bad = [field for field, kinds in fields.items() if not isinstance(given.get(field), kinds)]
            if bad:
                raise DataError(
                    f"{path}: {key}[{number}] has no proper {' and '.join(bad)}", "export it again"
                )
        loaded[key] = entries
    return loaded


def find_folder(source: Source, names: Sequence[str]) -> Path:
    """Return the folder in which a file's images lie.

    Raises:
        DataError: If none of them is to be found.
    """
    for folder in source.folders:
        if any(find_image(folder, name) for name in names):
            return folder
    looked = ", ".join(f"{folder}/" for folder in source.folders)
    raise DataError(
        f"{source.path}: none of the {len(names)} images that it lists is there, such as {names[:1]}",
        f"looked in {looked}; put them into one of these",
    )


def find_image(folder: Path, name: str) -> Path | None:
    """Return the image that a file calls `name`, with or without the folders in that name."""
    whole = name.replace("\\", "/")
    paths = (folder / whole, folder / Path(whole).name)
    return next((path for path in paths if path.is_file()), None)


def _require_one_each(root: Path, sources: list[Source]) -> list[Source]:
    taken: dict[Split | None, Source] = {}
    for source in sources:
        other = taken.setdefault(source.split, source)
        if other is not source:
            both = f"both {other.path} and {source.path}"
            raise DataError(f"{root}: {both} would be the {source.split} split", "keep one of them")
    return sources


def _folders(root: Path, path: Path) -> Iterator[Path]:
    split, images = _split_of(path.stem), child(root, "images")
    for base in (root, images):
        subs = subfolders(base) if base else []
        # train2017/ comes before train2014/ for instances_train2017.json.
        subs = sorted(subs, key=lambda sub: not path.stem.lower().endswith(sub.name.lower()))
        for sub in subs:
            if path.stem.lower().endswith(sub.name.lower()) or (split and _split_of(sub.name) == split):
                yield sub
    yield from (folder for folder in (images, root) if folder)


def _split_of(name: str) -> Split | None:
    match = _NAMED.fullmatch(name.lower())
    return SPLIT_NAMES.get(match[1]) if match else None


def _looks_like_coco(path: Path) -> bool:
    with path.open("rb") as file:
        return _KEYS.search(file.read(HEAD_BYTES)) is not None
