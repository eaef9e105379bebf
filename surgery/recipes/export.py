"""`surgery export`: a stored model exported again, or in another precision, as the next version."""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path

from surgery.artifact.errors import ConfigError, DataError
from surgery.artifact.store import Store

PRECISIONS = ("fp32", "int8", "fp16")


def export(ref: str, precision: str, data: str | None, tolerance: float, as_json: bool) -> None:
    """Export a version and store the result as the next version.

    Args:
        ref: NAME, NAME@VERSION or NAME@ALIAS.
        precision: `fp32` exports the weights again; `int8` and `fp16` rewrite the version's float32 graph.
        data: Data set for scores and calibration; None is the one in the version's recipe.
        tolerance: Percentage points of the main score on val that `int8` and `fp16` may lose.
        as_json: Print one JSON object on stdout.

    Raises:
        ConfigError: If the precision is not offered, or the tolerance out of range.
        ParityError: If the graph answers differently; nothing is stored.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"--precision {precision!r} is not one of {', '.join(PRECISIONS)}")
    store = Store()
    stored = store.resolve(ref)
    from surgery.deliver.package import export_again
    from surgery.deliver.precision import export_precision
    from surgery.recipes.reading import read_as_trained
    from surgery.report.page import write_report
    from surgery.train.interrupt import deferred_interrupts
    from surgery.train.reporting import Reporter

    report = Reporter()
    folder = Path(data or stored.manifest.data["path"])
    if data is None and not folder.exists():
        raise DataError(f"{folder}: the data of the training is not there", "Say where it is: --data DATA.")
    table, targets = read_as_trained(folder, stored, report)
    write = functools.partial(write_report, report=report)
    with deferred_interrupts():
        if precision == "fp32":
            new = export_again(store, stored, table, targets, report, write)
        else:
            new = export_precision(store, stored, precision, table, targets, tolerance, report, write)
    made = new.manifest
    if as_json:
        served = {device: made.precision_on(device) for device in made.serve}
        facts = {"model": new.name, "version": new.version, "parent": stored.ref, "precision": precision}
        facts |= {"scores": made.scores, "parity": made.parity, "speed": made.speed, "serve": served}
        json.dump(facts, sys.stdout)
        print()
    passed = made.parity.get("precisions", {}).get(precision, {}).get("passed", True)
    after = f"surgery models promote {new.name} {new.version}"
    if not passed:
        after = f"surgery export {ref} --precision {precision} --tolerance POINTS, if it may lose more"
    report.line(f"stored {new.ref} in {new.path}; next: {after}")
