"""Killed at any moment, a run leaves nothing half, and `--resume` ends as if nothing had happened."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from killing import run_forked
from running import TINY, Surgery
from safetensors.numpy import load_file

from surgery.artifact.store import Store
from surgery.train import cache as cache_module

RUN = (*TINY, "--strategy", "gradual", "--epochs", "4", "--image-size", "32", "--batch-size", "16")
RUN += ("--dropout", "0.2", "--train-bn", "--backbone-lr-share", "0.5", "--device", "cpu", "--patience", "9")
LIFE = (
    (("cache", 21), "resuming at epoch 1 step 0"),
    (("cached", 30), "resuming at epoch 1 step 0"),
    (("flush", 2), "resuming at epoch 1 step 0"),
    (("step", 5), "resuming at epoch 2 step 1"),
    (("epoch", 2), "resuming at epoch 3 step 0"),
    (("step", 5), "resuming at epoch 4 step 1"),
    (("export", 1), "resuming at epoch 5 step 0"),
    (("parity", 1), "resuming at epoch 5 step 0"),
    (("report", 1), "resuming at epoch 5 step 0"),
    (("seal", 1), "resuming at epoch 5 step 0"),
    (("name", 1), "resuming at epoch 5 step 0"),
)
"""Where each process is killed, and what the next one says."""


def test_killed_again_and_again_it_ends_with_the_same_weights(
    rooms: Path, zeros_and_ones: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["finetune", str(zeros_and_ones), "--name", "digits", *RUN]
    expected = ""
    for life, (kill, next_words) in enumerate(LIFE):
        resume = ["--resume"] if life else []
        code, printed = run_forked([*command, *resume], rooms / f"{life}.log", kill)
        assert code == -signal.SIGKILL, f"{kill}: {printed}"
        assert expected in printed, kill
        assert Store().list_versions("digits") == []
        assert Store().list_damaged() == {}
        expected = next_words
    code, printed = run_forked([*command, "--resume"], rooms / "stored.log", ("finish", 1))
    assert code == -signal.SIGKILL, printed
    assert Store().list_versions("digits") == [1]
    code, printed = run_forked([*command, "--resume"], rooms / "last.log")  # stores it no second time
    assert code == 0, printed
    assert expected in printed
    assert Store().list_versions("digits") == [1]
    assert Store().verify("digits", 1).manifest.strategy["epochs"] == 4
    disturbed = folders(rooms)

    undisturbed_rooms = rooms / "undisturbed"
    for key in ("MODELS", "RUNS", "CACHE"):
        monkeypatch.setenv(f"SURGERY_{key}", str(undisturbed_rooms / key.lower()))
    code, printed = run_forked(command, rooms / "undisturbed.log")
    assert code == 0, printed
    assert "resuming" not in printed
    for mine, theirs in zip(disturbed, folders(undisturbed_rooms), strict=True):
        assert_same_tensors(mine, theirs)


def folders(room: Path) -> tuple[Path, Path]:
    """Return the stored weights (the best) and the last checkpoint of the only run."""
    last = sorted(room.glob("runs/*/checkpoints/epoch-0004-step-000000.safetensors"))
    assert len(last) == 1
    return room / "models" / "digits" / "1" / "weights.safetensors", last[0]


def assert_same_tensors(one: Path, other: Path) -> None:
    mine, theirs = load_file(one), load_file(other)
    assert mine.keys() == theirs.keys()
    unequal = [name for name in mine if mine[name].tobytes() != theirs[name].tobytes()]
    assert unequal == []


def test_interrupted_it_says_how_to_go_on_and_does(rooms: Path, scenes: Path) -> None:
    """A real process, and Ctrl-C in the middle of an epoch."""
    options = ("--task", "segment", "--classes", "car", "--ignore", "unlabelled", "--epochs", "400")
    command = [sys.executable, "-m", "surgery", "finetune", str(scenes), "--name", "cars", *TINY, *options]
    with (rooms / "log").open("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"})
        wait_for("epoch 2:", rooms / "log", process)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 1
    printed = (rooms / "log").read_text()
    assert "--resume" in printed.splitlines()[-1]
    assert "Traceback" not in printed
    assert Store().list_names() == []
    (newest,) = (rooms / "runs").glob("cars-*/checkpoints/epoch-*-step-*[1-9]*.safetensors")
    epoch, step = map(int, re.findall(r"\d+", newest.stem))
    arguments = ["finetune", str(scenes), "--name", "cars", *TINY, *options, "--resume"]
    code, printed = run_forked(arguments, rooms / "resumed.log", ("step", 1))
    assert code == -signal.SIGKILL
    assert f"resuming at epoch {epoch + 1} step {step}" in printed


def wait_for(words: str, log: Path, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 120
    while words not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.05)


def test_a_full_disk_while_caching_is_said_and_survived(
    rooms: Path, scenes: Path, surgery: Surgery, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, written = cache_module.save_file, 0

    def save_until_full(tensors: dict[str, object], path: Path) -> None:
        nonlocal written
        written += 1
        if written > 11:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(tensors, path)

    command = (
        "finetune",
        scenes,
        "--name",
        "cars",
        *TINY,
        "--task",
        "segment",
        "--classes",
        "car",
        "--epochs",
        "1",
    )
    monkeypatch.setattr(cache_module, "save_file", save_until_full)
    ran = surgery(*command)
    assert ran.code == 2
    assert "disk is full" in ran.err
    assert "SURGERY_CACHE" in ran.err
    assert "Traceback" not in ran.err
    assert Store().list_names() == []
    records = list((rooms / "cache").rglob("*.safetensors"))
    assert len(records) == 11
    assert all(load_file(record) for record in records)
    assert list((rooms / "cache").rglob("*.part")) == []
    monkeypatch.setattr(cache_module, "save_file", real)
    assert surgery(*command, "--resume").code == 0
    logits = Store().resolve("cars").manifest.parity["largest_logit"]
    assert np.isfinite(logits)
