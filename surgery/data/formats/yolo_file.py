"""The data.yaml of YOLO's format: the names of the classes, and where the images of each split lie."""

from __future__ import annotations

import os
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surgery.artifact.errors import DataError
from surgery.data.folders import files_in
from surgery.data.table import Split

SUFFIXES = (".yaml", ".yml")
USUAL = ("data", "dataset")
"""Names of the file without its ending: one of them counts where there are several YAML files."""
KEYS: dict[str, Split] = {"train": "train", "val": "val", "valid": "val", "test": "test"}


@dataclass(frozen=True)
class Spec:
    """What a data.yaml says."""

    path: Path
    """The file."""
    names: tuple[str, ...]
    """Names of the classes by their number."""
    bases: tuple[Path, ...]
    """Folders from which paths may start, the likelier first."""
    entries: dict[Split, list[str]]
    """Folders and lists of each split, as they are written."""

    def find(self, text: str, *before: Path) -> Path | None:
        """Return the file or folder that a path means; None where there is none.

        Args:
            text: The path.
            before: Folders from which it may start too, likelier ones than `bases`.
        """
        text = text.replace("\\", "/")
        # Roboflow writes ../train/images for what lies beside the file.
        inside = [text.removeprefix("../")] if text.startswith("../") else []
        paths = (base / each for base in (*before, *self.bases) for each in (*inside, text))
        return next((Path(os.path.normpath(path)) for path in paths if path.exists()), None)


def find_file(root: Path) -> Path | None:
    """Return the YAML file of a data set, which may be named itself.

    Raises:
        DataError: If there are several, or the one that is called data.yaml is no YAML.
    """
    if not root.is_dir():
        return root if root.suffix.lower() in SUFFIXES else None
    files = [path for path in files_in(root) if path.suffix.lower() in SUFFIXES]
    found = []
    for path in files:
        try:
            values = _load(path)
        except DataError:
            if path.stem.lower() in USUAL:
                raise
            continue
        if isinstance(values, dict) and "names" in values and "train" in values:
            found.append(path)
    usual = [path for path in found if path.stem.lower() in USUAL] or found
    if len(usual) > 1:
        names = ", ".join(path.name for path in usual)
        raise DataError(f"{root}: several files describe the data: {names}", f"name one: {usual[0]}")
    return usual[0] if usual else None


def read_spec(path: Path) -> Spec:
    """Read a data.yaml.

    Raises:
        DataError: If a part of it is not as it should be.
    """
    values = _load(path)
    if not isinstance(values, dict) or not values.get("train"):
        raise DataError(f"{path}: says nothing of train", "write train: FOLDER")
    names = _read_names(path, values.get("names"))
    count = values.get("nc", len(names))
    if count != len(names):
        raise DataError(f"{path}: nc is {count}, but names has {len(names)}", "make them agree")
    entries: dict[Split, list[str]] = {}
    for key, split in KEYS.items():
        given = values.get(key)
        texts = given if isinstance(given, list) else [given] if given else []
        if not all(isinstance(text, str) for text in texts):
            raise DataError(f"{path}: {key} is neither a path nor a list of paths", "mend it")
        if texts:
            entries.setdefault(split, []).extend(texts)
    if entries["train"] == entries.get("val"):
        raise DataError(f"{path}: train and val are the same", "leave val out to have it drawn from train")
    folder = path.parent / str(values.get("path") or "")
    bases = (folder, path.parent) if folder.is_dir() and folder != path.parent else (path.parent,)
    return Spec(path, names, bases, entries)


def _read_names(path: Path, given: Any) -> tuple[str, ...]:
    if isinstance(given, dict):
        if sorted(map(str, given)) != sorted(map(str, range(len(given)))):
            raise DataError(f"{path}: the numbers of names are not 0 to {len(given) - 1}", "name every class")
        given = [given[key] for key in sorted(given, key=int)]
    if not isinstance(given, list) or not given:
        raise DataError(f"{path}: names no classes", "write names: [NAME, …]")
    names = tuple(unicodedata.normalize("NFC", str(name)) for name in given)
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise DataError(f"{path}: two classes are called {twice[0]!r}", "give every class its own name")
    return names


def _load(path: Path) -> Any:
    import yaml

    try:
        return yaml.safe_load(path.read_text("utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: is no YAML: {error}", "mend it") from error
