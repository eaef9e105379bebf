"""Files that name the values or the colours of masks."""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from surgery.artifact.errors import DataError
from surgery.data.masks import Colour, Colours

Row = tuple[int, str, Colour | None]
"""The number of a line, the name that it gives, and its colour."""

_RGB = re.compile(r"(.+?)[\s,;:]+(\d{1,3})[\s,;]+(\d{1,3})[\s,;]+(\d{1,3})")
_HEX = re.compile(r"(.+?)[\s,;:]+#([0-9a-fA-F]{6})")


@dataclass(frozen=True)
class ClassList:
    """The classes that one file names."""

    path: Path
    """The file."""
    names: tuple[str, ...]
    """By mask value."""
    colours: Colours = ()
    """The colour of each mask value; empty where the file gives none."""


def find_class_lists(folders: Sequence[Path]) -> list[ClassList]:
    """Return what the files in these folders name, those that are preferred first.

    Raises:
        DataError: If a file cannot be understood, or two of the same name contradict each other.
    """
    found: list[ClassList] = []
    for name, parse in PARSERS.items():
        lists = [_read(folder / name, parse) for folder in folders if (folder / name).is_file()]
        for other in lists[1:]:
            if (other.names, other.colours) != (lists[0].names, lists[0].colours):
                raise DataError(f"{other.path}: names other classes than {lists[0].path}", "keep one of them")
        found += lists[:1]
    return found


def _read(path: Path, parse: Callable[[Path, list[str]], list[Row]]) -> ClassList:
    rows = parse(path, read_lines(path))
    if not rows:
        raise DataError(f"{path}: is empty", "write one class name a line, from mask value 0 on")
    _require_different(path, [(number, name) for number, name, _ in rows], "named", "name")
    coloured = [(number, str(colour)) for number, _, colour in rows if colour is not None]
    _require_different(path, coloured, "given", "colour")
    if coloured and len(coloured) < len(rows):
        number, name = next((number, name) for number, name, colour in rows if colour is None)
        raise DataError(
            f"{path} line {number}: {name!r} has no colour, but line {coloured[0][0]} has one",
            "give every class a colour, or none",
        )
    names = tuple(unicodedata.normalize("NFC", name) for _, name, _ in rows)
    return ClassList(path, names, tuple((c, i) for i, (_, _, c) in enumerate(rows) if c is not None))


def _require_different(path: Path, given: list[tuple[int, str]], verb: str, what: str) -> None:
    first: dict[str, int] = {}
    for number, text in given:
        if text in first:
            raise DataError(
                f"{path} line {number}: {text!r} is {verb} on line {first[text]} already",
                f"give every mask value its own {what}",
            )
        first[text] = number


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file, without blanks at their ends and the file's.

    Raises:
        DataError: If it is not UTF-8.
    """
    try:
        return [line.strip() for line in path.read_text("utf-8-sig").rstrip().splitlines()]
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text", "save it as UTF-8") from error


def _parse_classes(path: Path, lines: list[str]) -> list[Row]:
    """classes.txt: a name a line, perhaps with `r g b` or `#rrggbb` after it."""
    rows: list[Row] = []
    for number, line in enumerate(lines, start=1):
        if not line:
            raise DataError(
                f"{path} line {number}: empty, but line {number} names mask value {number - 1}",
                "give every value a name; leave it out of training with --ignore NAME",
            )
        rgb, code = _RGB.fullmatch(line), _HEX.fullmatch(line)
        if rgb:
            rows.append((number, rgb[1], _colour(path, number, rgb.groups()[1:])))
        elif code:
            red, green, blue = bytes.fromhex(code[2])
            rows.append((number, code[1], (red, green, blue)))
        else:
            rows.append((number, line, None))
    return rows


def _parse_class_dict(path: Path, lines: list[str]) -> list[Row]:
    """class_dict.csv: `name,r,g,b` below such a header."""
    rows: list[Row] = []
    for number, line in enumerate(lines, start=1):
        cells = [cell.strip() for cell in next(csv.reader([line]), [])]
        if not cells or (number == 1 and not "".join(cells[1:2]).isdecimal()):
            continue
        if len(cells) != 4:
            raise DataError(f"{path} line {number}: {line!r} is not name,r,g,b", "mend the line")
        rows.append((number, cells[0], _colour(path, number, cells[1:])))
    return rows


def _parse_label_colors(path: Path, lines: list[str]) -> list[Row]:
    """label_colors.txt of CamVid: `r g b name`."""
    rows: list[Row] = []
    for number, line in enumerate(lines, start=1):
        parts = line.split(None, 3)
        if not parts or line.startswith("#"):
            continue
        if len(parts) != 4:
            raise DataError(f"{path} line {number}: {line!r} is not `r g b name`", "mend the line")
        rows.append((number, parts[3], _colour(path, number, parts[:3])))
    return rows


def _parse_label_map(path: Path, lines: list[str]) -> list[Row]:
    """labelmap.txt of CVAT: `name:r,g,b:parts:actions`; the colour may be left out."""
    rows: list[Row] = []
    for number, line in enumerate(lines, start=1):
        if not line or line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        colour = rest.partition(":")[0].strip()
        rows.append((number, name.strip(), _colour(path, number, colour.split(",")) if colour else None))
    return rows


def _colour(path: Path, number: int, parts: Sequence[str]) -> Colour:
    texts = [part.strip() for part in parts]
    if len(texts) != 3 or not all(text.isdecimal() and int(text) < 256 for text in texts):
        shown = ",".join(texts)
        raise DataError(f"{path} line {number}: {shown!r} is no colour", "write red, green, blue, 0–255 each")
    red, green, blue = (int(text) for text in texts)
    return red, green, blue


PARSERS: dict[str, Callable[[Path, list[str]], list[Row]]] = {
    "classes.txt": _parse_classes,
    "class_dict.csv": _parse_class_dict,
    "label_colors.txt": _parse_label_colors,
    "labelmap.txt": _parse_label_map,
}
"""The files that are understood, in the order in which they are preferred."""
