"""`make demo`, at its smallest, and what it says where something fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from surgery.artifact.errors import SurgeryError
from surgery.artifact.store import Store
from surgery.recipes.demo import NAME, serving


def test_the_demo_ends_with_a_mask_and_a_table(rooms: Path) -> None:
    command = [sys.executable, "-m", "surgery.recipes.demo", "--size", "small"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    summary = json.loads((rooms / "demo" / "summary.json").read_text())
    assert {"iou_before", "iou_after", "parity", "seconds"} <= set(summary)
    assert summary["parity"]["passed"] is True
    assert summary["parity"]["max_difference"] <= 1e-4 * max(1.0, summary["parity"]["largest_logit"])
    assert summary["parity"]["served_equal"] > 0.999
    steps = dict(summary["seconds"])
    assert steps.pop("total") == pytest.approx(sum(steps.values()), abs=0.5)
    stored = Store().resolve(NAME)
    scores = stored.manifest.scores
    assert summary["iou_before"] == scores["before"]["iou"]
    assert summary["iou_after"] == pytest.approx(scores["scores"]["iou"], abs=1e-6)
    check_pictures(rooms / "demo")
    for words in ("before fine-tuning", "passed", "demo/overlay.png", f"models/{NAME}/1", "bentoml serve"):
        assert words in ran.stdout
    left = {path.name for path in (rooms / "demo").iterdir()}
    assert left == {"data", "runs", "image.png", "mask.png", "overlay.png", "server.log", "summary.json"}
    assert not is_answering(rooms / "demo" / "server.log")


def check_pictures(folder: Path) -> None:
    """The overlay is the image, but for what the mask calls a car."""
    image, mask, overlay = (
        np.asarray(Image.open(folder / f"{name}.png")) for name in ("image", "mask", "overlay")
    )
    assert mask.shape == image.shape[:2] == overlay.shape[:2]
    assert set(np.unique(mask)) <= {0, 1}
    changed = (image != overlay).any(2)
    assert changed.any() == mask.any()
    assert (changed & (mask > 0)).sum() >= 0.9 * mask.sum()


def is_answering(log: Path) -> bool:
    """Tell whether a process still runs that wrote the server's log."""
    time.sleep(0.2)
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.path.samefile(handle, log) for handle in (folder / "fd").iterdir()):
                return True
        except OSError:
            continue
    return False


def test_a_server_that_does_not_start_shows_its_log(rooms: Path) -> None:
    environment = os.environ | {"BENTOML_HOME": str(rooms / "bentoml"), "SURGERY_DEVICE": "abacus"}
    with (
        pytest.raises(SurgeryError, match=r"not ready: it ended(.|\n)*SURGERY_DEVICE='abacus'"),
        serving(environment, rooms / "server.log", {}, Console(quiet=True)),
    ):
        raise AssertionError("it was never ready")
