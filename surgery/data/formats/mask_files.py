"""What the values of mask files stand for, decided from a few of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from surgery.artifact.errors import DataError
from surgery.artifact.image import read_mask
from surgery.data.formats.class_lists import PARSERS, ClassList, find_class_lists
from surgery.data.masks import (
    BinaryMask,
    Colour,
    ColourMask,
    Colours,
    IndexMask,
    MaskSource,
    count_colours,
    read_palette,
)

LOOKED_AT = 16
"""Masks that are read to find out what their values stand for."""
BINARY = ("background", "foreground")
"""Classes of masks of two values that no file names."""
TWO_VALUES = ({0, 1}, {0, 255})
"""What masks of two values hold."""

MakeMask = Callable[[Path], MaskSource]


@dataclass
class Seen:
    """What some masks hold."""

    values: set[int] = field(default_factory=set)
    """Values of grey masks and of palette masks, and grey ones of colour images."""
    colours: set[Colour] = field(default_factory=set)
    """Colours of colour images."""
    palette: set[tuple[int, Colour]] = field(default_factory=set)
    """Values of palette masks and their colours."""
    mixed: bool = False
    """Whether a colour image held a colour that is not grey."""


def choose_source(
    root: Path, places: Sequence[Path], masks: Sequence[Path], extra: Colours = ()
) -> tuple[tuple[str, ...], MakeMask]:
    """Find out the classes of mask files and how to read them.

    Args:
        root: The data set, for messages.
        places: Folders in which a file may name the classes.
        masks: All mask files.
        extra: Colours that may occur although no file names them, and their mask values.

    Returns:
        The names by mask value, and what makes a source of a mask file.

    Raises:
        DataError: If nothing names the classes and the masks do not speak for themselves.
    """
    lists = find_class_lists(places)
    seen = look_at(masks)
    table = next((found for found in lists if found.colours), None)
    if table is not None and _by_colour(seen, table):
        named = {colour for colour, _ in table.colours}
        colours = (*table.colours, *(pair for pair in extra if pair[0] not in named))
        return table.names, lambda path: ColourMask(path, colours)
    if lists:
        two = len(lists[0].names) == 2 and seen.values == {0, 255}
        return lists[0].names, BinaryMask if two else IndexMask
    if seen.values in TWO_VALUES and not seen.mixed:
        return BINARY, BinaryMask
    if seen.mixed:
        raise DataError(
            f"{root}: masks in colours, but no file that names them",
            f"write {root / 'classes.txt'}: a line `name r g b` for each class",
        )
    raise DataError(
        f"{root}: masks, but no {join_or(PARSERS)} that names their values",
        f"write {root / 'classes.txt'}: one name a line, the first line for mask value 0",
    )


def join_or(names: Iterable[str]) -> str:
    """Return `a, b or c`."""
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


def look_at(masks: Sequence[Path]) -> Seen:
    """Read masks from all over the list, and more of them as long as they hold nothing but 0."""
    seen = Seen()
    step = max(1, len(masks) // LOOKED_AT)
    spread = [*masks[::step], *(mask for i, mask in enumerate(masks) if i % step)]
    for count, path in enumerate(spread):
        if count >= LOOKED_AT and (seen.values - {0} or seen.mixed):
            break
        try:
            _add(seen, path)
        except DataError:  # the check of the data tells of damaged masks
            continue
    return seen


def _add(seen: Seen, path: Path) -> None:
    values = read_mask(path)
    if values.ndim == 3:
        colours = set(count_colours(values))
        grey = {colour[0] for colour in colours if len(set(colour)) == 1}
        seen.colours |= colours
        seen.mixed |= len(grey) < len(colours)
        seen.values |= grey
        return
    used = [int(value) for value in np.unique(values)]
    seen.values |= set(used)
    palette = read_palette(path)
    if palette is not None:
        seen.palette |= {(value, colour) for value in used for colour in count_colours(palette[value])}


def _by_colour(seen: Seen, table: ClassList) -> bool:
    """Whether the colours count and not the values."""
    known = dict(table.colours)
    if seen.mixed:
        return True
    if seen.colours or seen.palette:
        if not seen.colours | {colour for _, colour in seen.palette} <= set(known):
            return False
        # A palette that only paints the values says nothing that they do not say.
        return bool(seen.colours) or any(known[colour] != value for value, colour in seen.palette)
    named = all(value < len(table.names) for value in seen.values)
    return not named and all((value, value, value) in known for value in seen.values)
