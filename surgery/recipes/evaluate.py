"""`surgery evaluate`: the scores of a stored model on labelled data."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from surgery.artifact.errors import DataError
from surgery.artifact.store import Store

SHOWN_CLASSES = 20
"""Classes up to which the confusion matrix is printed; `--json` always holds it."""


def evaluate(ref: str, data: str, split: str, device: str, as_json: bool, skip_bad: bool = False) -> None:
    """Score a stored model from image bytes to answer.

    Args:
        ref: NAME, NAME@VERSION or NAME@ALIAS.
        data: Folder of the data set.
        split: `train`, `val` or `test`.
        device: `auto`, `cpu` or `cuda`.
        as_json: Print one JSON object on stdout.
        skip_bad: Leave unreadable images out.

    Raises:
        DataError: If the data cannot be read, or holds other classes than the model.
    """
    stored = Store().resolve(ref)
    from surgery.artifact.session import open_version
    from surgery.deliver.scoring import score_graph
    from surgery.recipes.reading import read_as_trained
    from surgery.train.reporting import Reporter

    report = Reporter()
    manifest = stored.manifest
    table, targets = read_as_trained(Path(data), stored, report, skip_bad)
    items = table.of(split)
    if not items:
        raise DataError(f"{data}: there is no image in split {split!r}", "Give --split train, val or test.")
    session = open_version(stored, device)
    precision = manifest.precision_on(session.device)
    with report.task(f"scoring {stored.ref}") as task:
        scores = score_graph(session, manifest, items, targets, task.update).scores
    facts = {"model": stored.name, "version": stored.version, "precision": precision, "split": split}
    facts |= scores.to_dict()
    if as_json:
        json.dump(facts, sys.stdout)
        print()
        return
    print(f"{stored.ref} ({precision}) on {split} of {data}, {scores.n} images")
    for key, value in scores.scores.items():
        print(f"  {key:<16}{value:.4f}")
    print_table(scores.per_class)
    if manifest.task == "classify" and scores.confusion and len(scores.classes) <= SHOWN_CLASSES:
        print("  confusion (rows are the truth)")
        print_table(
            {
                name: dict(zip(scores.classes, row, strict=True))
                for name, row in zip(scores.classes, scores.confusion, strict=True)
            }
        )
    report.line(f"next: surgery predict {stored.ref} IMAGE --out out/")


def print_table(per_class: Mapping[str, Mapping[str, float]]) -> None:
    """Print scores by class."""
    keys = list(next(iter(per_class.values()), {}))
    width = max([5, *(len(name) for name in per_class)])
    print(f"  {'class':<{width}}  " + "  ".join(f"{key:>9}" for key in keys))
    for name, row in per_class.items():
        cells = [f"{row[key]:.4f}" if isinstance(row[key], float) else str(row[key]) for key in keys]
        print(
            f"  {name:<{width}}  "
            + "  ".join(f"{c:>{max(9, len(k))}}" for c, k in zip(cells, keys, strict=True))
        )
