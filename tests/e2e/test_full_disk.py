"""The disk fills up at one place after another: each time it is said, and `--resume` goes on from there."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from running import TINY, Surgery

from surgery.artifact import disk
from surgery.artifact.store import Store
from surgery.report import page
from surgery.train import checkpoint, lr_range, run
from surgery.train.checkpoint import load_tensors, newest_checkpoint

RUN = (*TINY, "--epochs", "2", "--image-size", "32", "--batch-size", "16", "--device", "cpu", "--lr", "auto")


def full_after(real: Callable[..., Any], calls: int) -> Callable[..., Any]:
    """Return a function that finds the disk full from one call after `calls` on."""
    made = 0

    def write(*given: Any, **named: Any) -> Any:
        nonlocal made
        made += 1
        if made > calls:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*given, **named)

    return write


PLACES: tuple[tuple[str, Any, str, int], ...] = (
    ("run folder", run, "save_recipe", 0),
    ("range test", lr_range.RangeTest, "save", 0),
    ("first checkpoint", checkpoint, "save", 1),
    ("later checkpoint", checkpoint, "save", 2),
    ("report", page, "read_template", 0),
    ("version", disk, "sha256", 1),
    ("end of the run", run.Run, "finish", 0),
)
"""Where, the module or class, its function that writes, and how often it still can."""


def test_a_full_disk_is_said_and_survived_wherever_it_strikes(
    rooms: Path, zeros_and_ones: Path, surgery: Surgery, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("finetune", zeros_and_ones, "--name", "digits", *RUN, "--resume")
    for place, owner, function, calls in PLACES:
        with monkeypatch.context() as patch:
            patch.setattr(owner, function, full_after(getattr(owner, function), calls))
            ran = surgery(*command)
        assert ran.code == 2, f"{place}: {ran.err}"
        assert "disk is full" in ran.err or "No space left" in ran.err, place
        assert "Traceback" not in ran.err, place
        assert "again" in ran.err or "repeat" in ran.err, place
        runs = list((rooms / "runs").iterdir()) if (rooms / "runs").exists() else []
        assert len(runs) == (place != "run folder"), place
        for folder in runs:
            newest = newest_checkpoint(folder / "checkpoints")
            assert newest is None or load_tensors(newest), place
        assert list(rooms.rglob("*.part")) == [], place
        assert Store().list_versions("digits") == ([1] if place == "end of the run" else []), place
    ran = surgery(*command)
    assert ran.code == 0, ran.err
    assert Store().list_versions("digits") == [1]
    assert Store().verify("digits", 1).manifest.strategy["epochs"] == 2
