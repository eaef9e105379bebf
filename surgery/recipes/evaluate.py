"""`surgery evaluate`: the scores of a stored model on labelled data."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from surgery.artifact.errors import ConfigError, DataError
from surgery.artifact.store import Store


def evaluate(ref: str, data: str, split: str, device: str, as_json: bool) -> None:
    """Score a stored model from image bytes to answer.

    Args:
        ref: NAME, NAME@VERSION or NAME@ALIAS.
        data: Folder of the data set.
        split: `train`, `val` or `test`.
        device: `auto`, `cpu` or `cuda`.
        as_json: Print one JSON object on stdout.

    Raises:
        DataError: If the data cannot be read, or holds other classes than the model.
    """
    stored = Store().resolve(ref)
    from surgery.artifact.session import open_session
    from surgery.data.matching import match_targets
    from surgery.deliver.scoring import score_graph
    from surgery.recipes.reading import read_checked
    from surgery.train.reporting import Reporter

    report = Reporter()
    manifest = stored.manifest
    table, targets = read_checked(
        Path(data), manifest.task, lambda table: match_targets(manifest, table), report
    )
    items = table.of(split)
    if not items:
        raise DataError(f"{data}: there is no image in split {split!r}", "Give --split train, val or test.")
    session = open_session(stored.graph(device_kind(device)), device)
    with report.task(f"scoring {stored.ref}") as task:
        scores = score_graph(session, manifest, items, targets, task.update)
    facts = {"model": stored.name, "version": stored.version, "split": split, **scores.to_dict()}
    if as_json:
        json.dump(facts, sys.stdout)
        print()
        return
    print(f"{stored.ref} on {split} of {data}, {scores.n} images")
    for key, value in scores.scores.items():
        print(f"  {key:<16}{value:.4f}")
    print_table(scores.per_class)


def device_kind(device: str) -> str:
    """Return the kind of device, `cpu` or `cuda`, that a wish comes down to on this machine."""
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"--device {device!r} is not one of auto, cpu, cuda")
    if device != "auto":
        return device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def print_table(per_class: dict[str, dict[str, float]]) -> None:
    """Print scores by class."""
    keys = list(next(iter(per_class.values()), {}))
    width = max([5, *(len(name) for name in per_class)])
    print(f"  {'class':<{width}}  " + "  ".join(f"{key:>9}" for key in keys))
    for name, row in per_class.items():
        cells = (f"{row[key]:>9.4f}" if isinstance(row[key], float) else f"{row[key]:>9}" for key in keys)
        print(f"  {name:<{width}}  " + "  ".join(cells))
