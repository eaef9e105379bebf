"""Two processes train as one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

OPTIONS = ("--backbone", "test_convnext", "--weights", "random", "--image-size", "32", "--strategy", "full")
OPTIONS += ("--epochs", "2", "--batch-size", "5", "--lr", "0.003", "--device", "cpu", "--accumulate", "2")


@pytest.fixture
def shades(tmp_path: Path) -> Path:
    """Dark and light noise: 9 + 8 train and 2 + 2 val images, of which batches of 5 leave unequal parts."""
    rng = np.random.default_rng(0)
    for split, counts in (("train", (9, 8)), ("val", (2, 2))):
        for label, count in zip(("dark", "light"), counts, strict=True):
            folder = tmp_path / "shades" / split / label
            folder.mkdir(parents=True)
            for i in range(count):
                low = 0 if label == "dark" else 70
                pixels = rng.integers(low, low + 180, (36, 36, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path / "shades"


def history(more: tuple[str, ...], folder: Path, data: Path) -> tuple[list[dict[str, float]], str]:
    """Run finetune in a room of its own; return its history and what it printed."""
    places = {f"SURGERY_{key.upper()}": str(folder / key) for key in ("models", "runs", "cache")}
    done = subprocess.run(
        [sys.executable, "-m", "surgery", "finetune", str(data), "--name", "s", *OPTIONS, *more],
        env=os.environ | places, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "models" / "s" / "1" / "history.json").read_text())["epochs"], done.stderr


def test_two_processes_have_the_losses_of_one(shades: Path, tmp_path: Path) -> None:
    alone, _ = history((), tmp_path / "one", shades)
    both, printed = history(("--processes", "2"), tmp_path / "two", shades)
    assert len(both) == len(alone) == 3
    for one, two in zip(alone, both, strict=True):
        for key in ("train_loss", "val_loss"):
            assert one[key] == pytest.approx(two[key], abs=1e-5)
    assert alone[2]["train_loss"] != pytest.approx(alone[1]["train_loss"], abs=1e-3)
    assert printed.count("epoch 2:") == 1  # one of them prints


def test_a_mistake_ends_them_with_its_own_exit_code(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "surgery", "finetune", str(tmp_path / "nowhere"), "--name", "s", *OPTIONS,
         "--processes", "2", "--json"],
        env=os.environ | {"SURGERY_RUNS": str(tmp_path / "runs")}, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads(done.stdout)["error"]["code"] == "bad_data"  # one object, whoever meets it first
