"""The folder of a run: runs/<name>-<time>/, what it was started with, and whether it is finished."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surgery.artifact.errors import ConfigError, DataError, WeightsError
from surgery.config import AdaptConfig, FinetuneConfig, save_recipe, to_dict
from surgery.data.record import describe_change, record_data
from surgery.data.table import Table

RUN_FILE = "run.json"
RATES_FILE = "lr-range.json"
DATA_FILE = "data.json"
"""What the run was started on, image by image (`data/record.py`)."""
TARGET_FILE = "target.json"
"""The same of the images without labels that a model is adapted to."""
LOCK_FILE = "in-use.lock"
"""Locked by the process that is at work in the folder; the system lets go of it when that process ends."""
FREE_TO_CHANGE = ("device", "workers", "keep_checkpoints", "checkpoint_minutes", "cache_gib", "trackers")
"""Fields that a resumed run may have otherwise than the run it goes on with."""


@dataclass(frozen=True)
class Run:
    """A training run on disk.

    Attributes:
        folder: Where checkpoints, events and `run.json` are.
        resumed: Whether it was there before.
    """

    folder: Path
    resumed: bool

    def finish(self, **facts: Any) -> None:
        """Mark the run as done, so that `--resume` starts a new one."""
        values = json.loads((self.folder / RUN_FILE).read_text("utf-8"))
        _write(self.folder / RUN_FILE, values | {"state": "done"} | facts)
        _let_go(self.folder)


_held: dict[Path, int] = {}
"""Open lock of each run that this process is at work in."""


def runs_root() -> Path:
    """Return the folder of all runs: $SURGERY_RUNS, else ./runs."""
    return Path(os.environ.get("SURGERY_RUNS", "runs"))


Config = FinetuneConfig | AdaptConfig


def open_run(
    config: Config, table: Table, weights_sha256: str | None, resume: bool, target: Table | None = None
) -> Run:
    """Make the folder of a new run, or find the unfinished one to go on with; no other process may then.

    Args:
        config: The resolved config.
        table: The data.
        weights_sha256: Of the file that the pretrained weights come from, if there is one.
        resume: Go on with the newest unfinished run of the name and kind, if there is one.
        target: Images without labels that the model is adapted to.

    Raises:
        ConfigError: If the unfinished run was started with other options, or is at work in another process.
        DataError: If the data has changed since, and in what.
        WeightsError: If the pretrained weights have.
    """
    if resume:
        folder = _find_unfinished(config.name, _kind_of(config))
        if folder is not None:
            _hold(folder)
            try:
                _check_same(folder, config, table, weights_sha256, target)
            except BaseException:
                _let_go(folder)
                raise
            return Run(folder, True)
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    folder = runs_root() / f"{config.name}-{stamp}"
    number = 1
    while folder.exists():
        number += 1
        folder = runs_root() / f"{config.name}-{stamp}-{number}"
    folder.mkdir(parents=True)
    values: dict[str, Any] = {"name": config.name, "kind": _kind_of(config), "state": "unfinished"}
    values |= {"data_fingerprint": table.fingerprint()}
    if target is not None:
        values |= {"target_fingerprint": target.fingerprint()}
    values |= {"weights_sha256": weights_sha256, "config": to_dict(config)}
    try:
        _hold(folder)
        save_recipe(config, folder / "recipe.yaml")
        _write(folder / DATA_FILE, record_data(table), indent=None)
        if target is not None:
            _write(folder / TARGET_FILE, record_data(target), indent=None)
        _write(folder / RUN_FILE, values)  # comes last: without it the folder is no run
    except BaseException:
        _let_go(folder)
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return Run(folder, False)


def unfinished_config(name: str, kind: str = "finetune") -> dict[str, Any] | None:
    """Return the config of the newest unfinished run of a name and kind, as plain values, if there is one."""
    folder = _find_unfinished(name, kind)
    if folder is None:
        return None
    values: dict[str, Any] = json.loads((folder / RUN_FILE).read_text("utf-8"))["config"]
    return values


def _hold(folder: Path) -> None:
    """Lock a run's folder until `_let_go` or the end of the process; this one may have held it before."""
    _let_go(folder)
    handle = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise ConfigError(
            f"--resume: {folder} is at work in another process",
            "Wait for it or stop it; without --resume a run of its own begins.",
        ) from error
    _held[folder.resolve()] = handle


def _let_go(folder: Path) -> None:
    handle = _held.pop(folder.resolve(), None)
    if handle is not None:
        os.close(handle)


def _kind_of(config: Config) -> str:
    return "adapt" if isinstance(config, AdaptConfig) else "finetune"


def _find_unfinished(name: str, kind: str) -> Path | None:
    found = []
    for path in runs_root().glob(f"{name}-*/{RUN_FILE}"):
        values = json.loads(path.read_text("utf-8"))
        mine = values["name"] == name and values.get("kind", "finetune") == kind
        if mine and values["state"] == "unfinished":
            found.append(path.parent)
    return max(found, key=lambda folder: folder.stat().st_ctime) if found else None


def _check_same(
    folder: Path, config: Config, table: Table, weights_sha256: str | None, target: Table | None
) -> None:
    values = json.loads((folder / RUN_FILE).read_text("utf-8"))
    # A run that an older version started knows none of the newer fields: they were as they are by default.
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    mine, theirs = to_dict(config), _plain(defaults) | values["config"]
    changed = [
        f"{key}: the run has {theirs.get(key)!r}, the command {mine[key]!r}"
        for key in mine
        if key not in FREE_TO_CHANGE and mine[key] != theirs.get(key)
    ]
    hint = f"Repeat the run's own command, or leave --resume out (the run is {folder})."
    if changed:
        raise ConfigError("--resume: other options than the unfinished run\n" + "\n".join(changed), hint)
    if values.get("weights_sha256") != weights_sha256:
        started = f"no longer what {folder} was started with"
        if isinstance(config, AdaptConfig):
            raise WeightsError(f"{config.model}: its weights are {started}", hint)
        raise WeightsError(f"--weights {config.weights}: {started}", hint)
    where = config.source if isinstance(config, AdaptConfig) else config.data
    _check_data(folder / DATA_FILE, where, values["data_fingerprint"], table, hint)
    if target is not None:
        _check_data(folder / TARGET_FILE, "--target", values["target_fingerprint"], target, hint)


def _check_data(record: Path, where: str, fingerprint: str, table: Table, hint: str) -> None:
    if fingerprint == table.fingerprint():
        return
    said = [f"{where}: the data has changed since {record.parent} was started"]
    if record.exists():  # older versions kept the fingerprint alone
        said += describe_change(json.loads(record.read_text("utf-8")), record_data(table))
    raise DataError("\n".join(said), hint)


def _plain(defaults: dict[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in defaults.items()}


def _write(path: Path, values: dict[str, Any], indent: int | None = 2) -> None:
    aside = path.with_suffix(".part")
    aside.write_text(json.dumps(values, indent=indent) + "\n", "utf-8")
    aside.replace(path)
