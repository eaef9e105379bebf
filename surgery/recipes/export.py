"""`surgery export`: a stored model's weights exported again, proven and stored as the next version."""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path

from surgery.artifact.errors import ConfigError, DataError
from surgery.artifact.store import Store

PRECISIONS = ("fp32",)


def export(ref: str, precision: str, data: str | None, as_json: bool) -> None:
    """Export a version's weights to ONNX again and store the result as the next version.

    Args:
        ref: NAME, NAME@VERSION or NAME@ALIAS.
        precision: `fp32`.
        data: Data set for parity and scores; None is the one in the version's recipe.
        as_json: Print one JSON object on stdout.

    Raises:
        ConfigError: If the precision is not offered.
        ParityError: If the graph answers differently; nothing is stored.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"--precision {precision!r} is not one of {', '.join(PRECISIONS)}")
    store = Store()
    stored = store.resolve(ref)
    from surgery.deliver.package import export_again
    from surgery.recipes.reading import read_as_trained
    from surgery.report.page import write_report
    from surgery.train.reporting import Reporter

    report = Reporter()
    folder = Path(data or stored.manifest.data["path"])
    if data is None and not folder.exists():
        raise DataError(f"{folder}: the data of the training is not there", "Say where it is: --data DATA.")
    table, targets = read_as_trained(folder, stored, report)
    new = export_again(store, stored, table, targets, report, functools.partial(write_report, report=report))
    if as_json:
        facts = {"model": new.name, "version": new.version, "parent": stored.ref}
        facts |= {"scores": new.manifest.scores, "parity": new.manifest.parity}
        json.dump(facts, sys.stdout)
        print()
    report.line(f"stored {new.ref} in {new.path}; next: surgery models promote {new.name} {new.version}")
