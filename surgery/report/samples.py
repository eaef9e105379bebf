"""The contact sheet of a dataset: some images of every class, and the images that it holds twice."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from surgery.artifact.answer import class_colours
from surgery.artifact.errors import SurgeryError
from surgery.artifact.image import read_image
from surgery.artifact.manifest import OutputSpec
from surgery.data.loaders import iterate
from surgery.data.masks import flatten_mask
from surgery.data.report import Report
from surgery.data.table import SPLITS, Item, Problem, Table
from surgery.report.pictures import data_uri, draw_class

PER_CLASS = 8
"""Images shown of a class, where the page has room for them."""
MOST_PICTURES = 400
"""Pictures of all classes together; of very many classes the last get none."""
MOST_BYTES = 3_000_000
"""Bytes of these pictures; the rounds that would pass it are left out."""
PAIRS = 12
"""Pairs of images shown of one kind."""
PAIR_BYTES = 800_000
"""Bytes of all pairs together."""
LABEL_SIDE, MASK_SIDE, PAIR_SIDE = 200, 300, 200
"""Longest side of a picture, in pixels."""
NO_LABEL = "no label"

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Card:
    """One picture of the page."""

    source: str
    """The picture, as a data URI."""
    file: str
    """Path of the image as seen from the root."""
    split: str
    note: str
    """What else is said of it: the share of the class, the other labels."""
    small: bool
    """Whether the image is so small that its pixels shall be seen."""


def mask_colours(table: Table) -> dict[str, Colour]:
    """Return the colour of each class of masks, by name; none for labels."""
    if table.task != "segment":
        return {}
    return class_colours(OutputSpec("softmax", table.classes, tuple(range(len(table.classes)))))


def choose_samples(report: Report, index: int | None, count: int) -> list[Item]:
    """Return images of a class, spread over the splits and in each over the data; always the same.

    Of masks the images are taken from the third that holds most of the class.

    Args:
        report: What the check found; images at fault are taken only where there are no others.
        index: The class, or None for images without any label.
        count: Most images that are returned.
    """
    items = [item for item in report.table.items if _holds(report, item, index)]
    items = [item for item in items if item.image not in report.bad] or items
    sides = {split: [item for item in items if item.split == split] for split in SPLITS}
    quota = dict.fromkeys((split for split in SPLITS if sides[split]), 1)
    while quota and sum(quota.values()) < min(count, len(items)):
        open_sides = [split for split in quota if quota[split] < len(sides[split])]
        # One place after the other goes to the split that is furthest behind its share (Sainte-Laguë).
        quota[max(open_sides, key=lambda split: len(sides[split]) / (2 * quota[split] + 1))] += 1
    chosen = [_spread(report, sides[split], index, n) for split, n in quota.items()]
    return list(itertools.chain(*chosen))[:count]


def _holds(report: Report, item: Item, index: int | None) -> bool:
    if index is None:
        return item.labels == ()
    if item.image in report.pixels:
        return bool(report.pixels[item.image][index])
    return item.label == index or index in (item.labels or ())


def _spread(report: Report, items: list[Item], index: int | None, count: int) -> list[Item]:
    if report.table.task == "segment":
        share = {item.image: _share(report, item, index) for item in items}
        most = sorted(items, key=lambda item: -share[item.image])[: max(count, len(items) // 3)]
        kept = {item.image for item in most}
        items = [item for item in items if item.image in kept]
    return [items[(2 * k + 1) * len(items) // (2 * count)] for k in range(count)]


def _share(report: Report, item: Item, index: int | None) -> float:
    """Return the share of an image's pixels that a class has."""
    pixels = report.pixels[item.image]
    return 0.0 if index is None else float(pixels[index] / max(1, pixels.sum()))


def draw_samples(report: Report, progress: Callable[[int, int], None]) -> dict[int | None, list[Card]]:
    """Return the cards of each class, by its index; None stands for images without any label.

    The first image of every class is drawn, then the second of every class, until there is no more room.

    Args:
        report: What the check found.
        progress: Called with (pictures drawn, pictures in all).
    """
    table = report.table
    classes: list[int | None] = [*range(len(table.classes)), *([None] if table.multilabel else [])]
    count = max(1, min(PER_CLASS, MOST_PICTURES // len(classes)))
    chosen = [(index, choose_samples(report, index, count)) for index in classes[:MOST_PICTURES]]
    rounds = [
        (index, place, items[place])
        for place in range(count)
        for index, items in chosen
        if place < len(items)
    ]
    colours = list(mask_colours(table).values())

    def draw(task: tuple[int | None, int, Item]) -> Card | None:
        return _draw_sample(report, task[2], task[0], colours)

    cards: dict[int | None, list[Card]] = {index: [] for index in classes}
    room = MOST_BYTES
    for done, (card,) in enumerate(iterate(rounds, [[k] for k in range(len(rounds))], draw)):
        if card is not None:
            room -= len(card.source)
            if room < 0:
                break
            cards[rounds[done][0]].append(card)
        progress(done + 1, len(rounds))
    return cards


def _draw_sample(report: Report, item: Item, index: int | None, colours: Sequence[Colour]) -> Card | None:
    """Return the card of one image, or None if it cannot be drawn: why not is told as a problem."""
    table = report.table
    try:
        image = read_image(item.image)
        small = max(image.shape[:2]) < LABEL_SIDE // 2
        if item.mask is None or index is None:
            others = [table.classes[label] for label in item.labels or () if label != index]
            source, note = data_uri(image, LABEL_SIDE), ", ".join(others)
        else:
            mask = flatten_mask(item.mask.read())
            if mask.shape != image.shape[:2]:
                return None
            source = data_uri(draw_class(image, mask, index, colours[index], MASK_SIDE), MASK_SIDE)
            note = f"{_share(report, item, index):.1%}"
    except (SurgeryError, OSError):
        return None
    return Card(source, table.relative(item.image), item.split, note, small)


def draw_pairs(report: Report) -> list[dict[str, Any]]:
    """Return the images that are there twice, by kind: how many, and the first pairs as cards."""
    kinds: dict[str, list[Problem]] = {}
    for problem in (*report.problems, *report.warnings, *report.similar):
        if problem.other is not None:
            kinds.setdefault(problem.kind, []).append(problem)
    items = {item.image: item for item in report.table.items}
    room = PAIR_BYTES
    found = []
    for kind, problems in kinds.items():
        pairs = []
        for k in np.linspace(0, len(problems), min(PAIRS, len(problems)), endpoint=False).astype(int):
            one, other = items[problems[k].path], items[problems[k].other]  # type: ignore[index]
            pair = [_draw_label(report.table, item) for item in (one, other)]
            room -= sum(len(card.source) for card in pair if card)
            if room >= 0 and all(pair):
                pairs.append(pair)
        found.append({"kind": kind, "count": len(problems), "pairs": pairs})
    return found


def _draw_label(table: Table, item: Item) -> Card | None:
    """Return an image as it is, with its label."""
    try:
        image = read_image(item.image)
    except SurgeryError:
        return None
    labels = (item.labels or ()) if item.label is None else (item.label,)
    note = ", ".join(table.classes[label] for label in labels) or (NO_LABEL if table.multilabel else "")
    small = max(image.shape[:2]) < PAIR_SIDE // 2
    return Card(data_uri(image, PAIR_SIDE), table.relative(item.image), item.split, note, small)
