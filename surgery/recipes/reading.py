"""Reading data for a command: found, checked, every problem reported at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from surgery.artifact.manifest import Manifest
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
) -> tuple[Table, TargetSpec]:
    """Read a data set, decide what is learnt or scored, and check every file.

    Args:
        root: Folder of the data set.
        task: `classify`, `segment`, or None to read it from the layout.
        choose: Decides from the table which classes count.
        report: Where to print.
        val_share: Share drawn for val where no split is given.
        seed: Seed of that split.
        skip_bad: Leave unreadable images out instead of stopping.

    Raises:
        DataError: With all problems, if there are any.
        ConfigError: If a class is named that the data lacks.
    """
    from surgery.data.check import check_table, raise_for
    from surgery.data.readers import read_table

    table = read_table(root, task, val_share, seed)
    targets = choose(table)
    with report.task("checking data") as task_shown:
        checked = check_table(table, targets, progress=task_shown.update)
    table = targets.select(raise_for(checked, skip_bad))
    for note in checked.notes():
        report.line(note)
    if checked.problems:  # with skip_bad
        report.line(checked.text())
        report.line(f"left out: {len(checked.bad)} images")
    counts = ", ".join(f"{len(table.of(split))} {split}" for split in ("train", "val", "test"))
    report.line(f"data: {root}: {table.layout}, {counts} ({table.split_rule})")
    return table, targets


def read_as_trained(
    root: Path, manifest: Manifest, report: Reporter, skip_bad: bool = False
) -> tuple[Table, TargetSpec]:
    """Read a data set with a finished model's classes, and split it as its training did.

    Args:
        root: Folder of the data set.
        manifest: The model's.
        report: Where to print.
        skip_bad: Leave unreadable images out; a model trained so always does.

    Raises:
        DataError: With all problems, or if the classes are not the model's.
    """
    from surgery.data.matching import match_targets

    known = manifest.data
    table, targets = read_checked(
        root,
        manifest.task,
        lambda table: match_targets(manifest, table),
        report,
        float(known.get("val_share", 0.2)),
        int(known.get("split_seed", 0)),
        skip_bad or bool(known.get("skip_bad", False)),
    )
    if table.split_rule != "given" and table.fingerprint() != known.get("fingerprint"):
        report.line("note: not the data of the training, so its drawn val may hold images trained on")
    return table, targets
