"""`surgery evaluate`: the scores of a stored model on labelled data."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from surgery.artifact.errors import DataError, UserError
from surgery.artifact.store import Store, StoredVersion

if TYPE_CHECKING:
    from surgery.artifact.session import Session
    from surgery.data.table import Table
    from surgery.data.targets import TargetSpec
    from surgery.deliver.scoring import Scored
    from surgery.report.gap import Gap
    from surgery.train.reporting import Reporter

SHOWN_CLASSES = 20
"""Classes up to which the confusion matrix is printed; `--json` always holds it."""


def evaluate(
    ref: str,
    data: str,
    split: str,
    device: str,
    as_json: bool,
    skip_bad: bool = False,
    gap: bool = True,
) -> None:
    """Score a stored model from image bytes to answer.

    Args:
        ref: NAME, NAME@VERSION or NAME@ALIAS.
        data: Folder of the data set.
        split: `train`, `val` or `test`.
        device: `auto`, `cpu` or `cuda`.
        as_json: Print one JSON object on stdout.
        skip_bad: Leave unreadable images out.
        gap: State the generalisation gap too, for which some training images are scored.

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
        judged = score_graph(session, manifest, items, targets, task.update)
    scores = judged.scores
    facts = {"model": stored.name, "version": stored.version, "precision": precision, "split": split}
    facts |= scores.to_dict()
    found, reason = None, "it was not asked for"
    if gap:
        found, reason = state_gap(session, stored, table, split, judged, report)
    facts["gap"] = found.to_dict() if found else None
    if as_json:
        json.dump(facts, sys.stdout)
        print()
        return
    print(f"{stored.ref} ({precision}) on {split} of {data}, {scores.n} images")
    for key, value in scores.scores.items():
        print(f"  {key:<16}{value:.4f}")
    if gap:
        print(f"  {'gap to train':<16}{found.describe() if found else reason}")
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


def state_gap(
    session: Session, stored: StoredVersion, table: Table, split: str, judged: Scored, report: Reporter
) -> tuple[Gap | None, str]:
    """Return the gap between a split and the images that a model was trained on, or why there is none.

    Args:
        session: The opened graph.
        stored: The model.
        table: The data that was scored.
        split: The side of it.
        judged: What the graph made of that side.
        report: Where progress is shown.
    """
    from surgery.report.gap import measure_gap

    if split == "train":
        return None, "train itself was scored"
    trained, reason = find_trained(stored, table)
    if trained is None:
        return None, reason
    source, targets = trained
    with report.task("scoring training images for the gap") as task:
        found = measure_gap(session, stored.manifest, source.of("train"), targets, judged, task.update)
    return found, ""


def find_trained(stored: StoredVersion, table: Table) -> tuple[tuple[Table, TargetSpec] | None, str]:
    """Return the data that a model was trained on, or why it cannot be had.

    Args:
        stored: The model.
        table: Data at hand, which may be it.
    """
    from surgery.data.matching import match_targets
    from surgery.recipes.reading import read_as_trained
    from surgery.train.reporting import Reporter

    known = stored.manifest.data
    wanted = known.get("fingerprint")
    if table.fingerprint() == wanted:
        trained = (table, match_targets(stored.manifest, table))
    else:
        path = Path(str(known.get("path", "")))
        if not known.get("path") or not path.exists():
            return None, f"the data of the training is not at {path}"
        try:
            trained = read_as_trained(path, stored, Reporter(quiet=True))
        except UserError as error:
            return None, f"the data of the training cannot be read: {error.message.splitlines()[0]}"
        if trained[0].fingerprint() != wanted:
            return None, f"{path} is no longer the data of the training"
    if not trained[0].of("train"):
        return None, "there is no training image"
    return trained, ""


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
