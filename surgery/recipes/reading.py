"""Reading data for a command: found, checked, every problem reported at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from surgery.artifact.store import Store, StoredVersion
    from surgery.config import FinetuneConfig
    from surgery.data.table import Table
    from surgery.data.targets import TargetSpec
    from surgery.train.reporting import Reporter


def read_checked(
    root: Path,
    task: str | None,
    choose: Callable[[Table], TargetSpec],
    report: Reporter,
    val_share: float = 0.2,
    seed: int = 0,
    skip_bad: bool = False,
    recorded: Mapping[str, str] | None = None,
    format: str | None = None,
) -> tuple[Table, TargetSpec]:
    """Read a data set, decide what is learnt or scored, and check every file.

    Args:
        root: Folder of the data set, or the file that lists it.
        task: `classify`, `segment`, or None to read it from the layout.
        choose: Decides from the table which classes count.
        report: Where to print.
        val_share: Share drawn for val where no split is given.
        seed: Seed of that split.
        skip_bad: Leave unreadable images out instead of stopping.
        recorded: Sides that an earlier draw gave, by sha256 of the image.
        format: How the data lies on disk; None finds it out.

    Raises:
        DataError: With all problems, if there are any.
        ConfigError: If a class is named that the data lacks.
    """
    from surgery.data.check import check_table, raise_for
    from surgery.data.readers import read_table

    table = read_table(root, task, val_share, seed, format, recorded)
    targets = choose(table)
    with report.task("checking data") as task_shown:
        checked = check_table(table, targets, progress=task_shown.update)
    table = targets.select(raise_for(checked, skip_bad))
    for note in checked.notes():
        report.line(note)
    if checked.problems:  # with skip_bad
        report.line(checked.text())
        report.line(f"left out: {checked.skipped} images")
    counts = ", ".join(f"{len(table.of(split))} {split}" for split in ("train", "val", "test"))
    report.line(f"data: {root}: {table.layout}, {counts} ({table.split_rule})")
    return table, targets


def read_to_train(config: FinetuneConfig, report: Reporter) -> tuple[Table, TargetSpec]:
    """Read the data of a config as `finetune` does: images that an earlier version placed stay on their side.

    Where the name has none, the version that the weights come from is asked: what it was trained on does
    not judge what comes of it.

    Raises:
        DataError: With all problems, if there are any.
        ConfigError: If a class is named that the data lacks.
    """
    from surgery.artifact.store import Store
    from surgery.data.targets import resolve_target

    data = Path(config.data)
    store = Store()
    recorded, start = earlier_split(store, config.name, data), None
    if recorded is None:
        start = find_start(store, config.weights, data)
        recorded = read_split(start) if start else None
    table, spec = read_checked(
        data, config.task, lambda table: resolve_target(table, config.classes, config.ignore), report,
        config.val_share, config.seed, config.skip_bad, recorded, config.format,
    )  # fmt: skip
    if start and recorded and table.split_rule != "given":
        report.line(f"split: that of {start.ref}, whose weights this begins with")
    return table, spec


def find_start(store: Store, weights: str, data: Path) -> StoredVersion | None:
    """Return the version that weights are asked of, if it was trained on the same data."""
    from surgery.artifact.errors import ModelNotFoundError, StoreError
    from surgery.nets.weights import names_version

    if not names_version(weights):
        return None
    try:
        stored = store.resolve(weights)
    except (ModelNotFoundError, StoreError):  # said where the weights are loaded
        return None
    return stored if _is_of(stored, data) else None


def read_as_trained(
    root: Path, stored: StoredVersion, report: Reporter, skip_bad: bool = False
) -> tuple[Table, TargetSpec]:
    """Read a data set with a finished model's classes, and split it as its training did.

    Args:
        root: Folder of the data set, or the file that lists it.
        stored: The model; where it drew val, images that it knows stay on their side.
        report: Where to print.
        skip_bad: Leave unreadable images out; a model trained so always does.

    Raises:
        DataError: With all problems, or if the classes are not the model's.
    """
    from surgery.data.matching import match_targets

    manifest = stored.manifest
    known, recorded = manifest.data, read_split(stored)
    table, targets = read_checked(
        root,
        manifest.task,
        lambda table: match_targets(manifest, table),
        report,
        float(known.get("val_share", 0.2)),
        int(known.get("split_seed", 0)),
        skip_bad or bool(known.get("skip_bad", False)),
        recorded,
        _format_as_trained(root, known.get("format")),
    )
    if table.split_rule != "given" and not recorded and table.fingerprint() != known.get("fingerprint"):
        report.line("note: not the data of the training, so its drawn val may hold images trained on")
    return table, targets


def _format_as_trained(root: Path, name: str | None) -> str | None:
    """Return the format that a training was told, where this data fits it; other data is found out anew."""
    from surgery.data.formats import FORMATS

    return next((each.name for each in FORMATS if each.name == name and each.fits(root)), None)


def read_split(stored: StoredVersion) -> dict[str, str] | None:
    """Return the sides that a version's split was drawn with, by sha256; None if it was given."""
    from surgery.deliver.package import SPLIT_FILE

    path = stored.path / SPLIT_FILE
    if not path.exists():
        return None
    sides: dict[str, str] = json.loads(path.read_text("utf-8"))
    return sides


def earlier_split(store: Store, name: str, data: Path) -> dict[str, str] | None:
    """Return the split that was drawn for a model's newest version on the same data.

    So an image that was trained on never turns up in val when the data grows and is trained on again.
    """
    for number in reversed(store.list_versions(name)):
        stored = store.resolve(f"{name}@{number}")
        if _is_of(stored, data):
            return read_split(stored)
    return None


def _is_of(stored: StoredVersion, data: Path) -> bool:
    return bool(stored.manifest.data.get("path") == str(data.resolve()))
