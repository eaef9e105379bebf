"""The classes of a data set against the classes of a finished model."""

from __future__ import annotations

from dataclasses import replace

from surgery.artifact.errors import DataError
from surgery.artifact.manifest import Manifest
from surgery.data.table import Table
from surgery.data.targets import TargetSpec, resolve_target


def match_targets(manifest: Manifest, table: Table) -> TargetSpec:
    """Return how a table's classes map to the classes that a model answers.

    Raises:
        DataError: If the table lacks a class of the model, or has them in another order.
    """
    output = manifest.output
    ref = f"{manifest.name}@{manifest.version}"
    ignored = [
        name
        for name in manifest.data.get("ignored", [])
        if name in table.classes or (manifest.task == "segment" and name.isdecimal())
    ]
    chosen = [name for name in output.classes if name != output.rest]
    missing = [name for name in chosen if name not in table.classes]
    if missing:
        raise DataError(
            f"{table.root}: lacks classes of {ref}: {', '.join(missing)}",
            f"Its classes: {', '.join(table.classes)}.",
        )
    if table.multilabel != output.multilabel:
        raise DataError(
            f"{table.root}: images of {'several labels' if table.multilabel else 'one label'} each, unlike "
            f"those {ref} was trained on",
            "Use data of the same kind.",
        )
    all_of_masks = manifest.task == "segment" and output.rest is None
    targets = resolve_target(table, () if all_of_masks else chosen, ignored)
    if replace(targets.output, temperature=output.temperature) != output:
        raise DataError(
            f"{table.root}: its classes {', '.join(targets.output.classes)} are not those of "
            f"{ref}, {', '.join(output.classes)}",
            "Use data with the same classes in the same order.",
        )
    return targets
