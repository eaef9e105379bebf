"""The page of `surgery data check --html`: what a dataset holds, what is wrong with it, and how it looks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from surgery.data.frequency import (
    FEW_IMAGES,
    FEW_PIXELS,
    LARGEST_RATIO,
    imbalance,
    learnt_classes,
    unit_of,
)
from surgery.data.report import Report
from surgery.data.table import SPLITS
from surgery.report.samples import NO_LABEL, draw_pairs, draw_samples, mask_colours
from surgery.report.template import read_template

TEMPLATE = "data_page.html.j2"
SHOWN = 8
"""Problems of one kind that stand open; the others are folded."""
FOLDED = 500
"""Problems of one kind that the page holds at all."""


def render_data_page(report: Report, name: str, progress: Callable[[int, int], None]) -> str:
    """Return the page; it needs no other file and no network, and is the same for the same data.

    Args:
        report: What the check found, with problems or without.
        name: What the data is called.
        progress: Called with (pictures drawn, pictures in all).
    """
    table, told = report.table, report.to_dict()
    cards = draw_samples(report, progress)
    colours = mask_colours(table)
    classes = class_rows(report)
    sheet = [
        {"name": row["name"], "colour": colours.get(row["name"]), "state": row["state"], "cards": cards[k]}
        for k, row in enumerate(classes)
    ]
    if cards.get(None):
        sheet.append({"name": NO_LABEL, "colour": None, "state": "", "cards": cards[None]})
    return read_template(TEMPLATE).render(
        name=name,
        table=table,
        root=table.root.resolve(),
        summary=report.summary,
        splits=list(report.summary["images"]),
        total=sum(report.summary["images"].values()),
        problems=group_findings(told["problems"]),
        warnings=group_findings(told["warnings"]),
        skipped=report.skipped,
        counts={"problems": len(report.problems), "warnings": len(report.warnings)},
        classes=classes,
        unlisted=unlisted_rows(report),
        left_out=left_out_shares(report),
        balance=describe_balance(report),
        sheet=sheet,
        twins=draw_pairs(report),
    )


def group_findings(findings: Sequence[dict[str, str]]) -> list[dict[str, Any]]:
    """Return problems or warnings by kind: the first stand open, more are folded, very many are counted."""
    groups: dict[str, list[dict[str, str]]] = {}
    for finding in findings:
        groups.setdefault(finding["kind"], []).append(finding)
    return [
        {
            "kind": kind,
            "count": len(group),
            "open": group[:SHOWN],
            "folded": group[SHOWN:FOLDED],
            "left": max(0, len(group) - FOLDED),
        }
        for kind, group in groups.items()
    ]


def class_rows(report: Report) -> list[dict[str, Any]]:
    """Return of each class its images, for masks its share of the pixels, and what is notable about it.

    `length` is that of a bar: 1 for the largest class of the split.
    """
    table, counts = report.table, report.frequencies
    splits = list(report.summary["images"])
    largest = {split: max([1, *counts.amounts[split]]) for split in splits}
    totals = _pixel_totals(report)
    kept, learnt = learnt_classes(table, report.target, with_rest=True), learnt_classes(table, report.target)
    ends = _unequal(report)
    rows = []
    for index, name in enumerate(table.classes):
        marks = [report.rare[index]] if index in report.rare else []
        if index in kept and "train" in splits and not counts.amounts["train"][index]:
            marks.append("none in train")
        if name in ends:
            marks.append(ends[name])
        rows.append(
            {
                "name": name,
                "value": index,
                "state": "" if index in learnt else "part of the rest" if index in kept else "left out",
                "marks": marks,
                "cells": [
                    {
                        "images": counts.images[split][index],
                        "share": counts.pixels[split][index] / totals[split] if counts.pixels else None,
                        "length": counts.amounts[split][index] / largest[split],
                    }
                    for split in splits
                ],
            }
        )
    return rows


def unlisted_rows(report: Report) -> list[dict[str, Any]]:
    """Return of each mask value without a name its share of the pixels, and whether it is left out."""
    ignored = report.target.ignored_values if report.target else report.table.ignored_values
    totals = _pixel_totals(report)
    return [
        {
            "value": value,
            "ignored": value in ignored,
            "shares": [counts[split] / totals[split] for split in report.summary["images"]],
        }
        for value, counts in report.frequencies.unlisted.items()
    ]


def left_out_shares(report: Report) -> dict[str, float]:
    """Return by split the share of pixels that count neither in loss nor in scores, if there are any."""
    kept, totals = learnt_classes(report.table, report.target, with_rest=True), _pixel_totals(report)
    if not report.frequencies.pixels:
        return {}
    shares = {
        split: 1 - sum(report.frequencies.pixels[split][index] for index in kept) / totals[split]
        for split in report.summary["images"]
    }
    return shares if any(share > 0 for share in shares.values()) else {}


def describe_balance(report: Report) -> str:
    """Return in a sentence how unequal the classes of train are, and what counts as rare."""
    unit = unit_of(report.table)
    found = imbalance(report.table, report.target, report.frequencies)
    said = []
    if found is not None:
        times, largest, smallest = found
        said.append(f"In train {largest} has {times:,.1f} times the {unit} of {smallest}.")
    pixels = f" or less than {FEW_PIXELS:.1%} of the pixels" if unit == "pixels" else ""
    said.append(
        f"Marked are classes with fewer than {FEW_IMAGES} images{pixels}, "
        f"and the two ends where one has over {LARGEST_RATIO[unit]} times as much as the other."
    )
    return " ".join(said)


def _unequal(report: Report) -> dict[str, str]:
    """Return the classes at both ends, where they are too far apart."""
    found = imbalance(report.table, report.target, report.frequencies)
    if found is None or found[0] <= LARGEST_RATIO[unit_of(report.table)]:
        return {}
    return {found[1]: "largest", found[2]: "smallest"}


def _pixel_totals(report: Report) -> dict[str, int]:
    """Return the pixels of all masks, by split."""
    totals = dict.fromkeys(SPLITS, 0)
    for item in report.table.items:
        if item.image in report.pixels:
            totals[item.split] += int(report.pixels[item.image].sum())
    return {split: max(1, total) for split, total in totals.items()}
