"""Data that grows between two runs: an image that was trained on is never scored on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from running import TINY, Surgery

from surgery.artifact.store import Store

OPTIONS = (*TINY, "--strategy", "random", "--image-size", "32", "--epochs", "1", "--batch-size", "16")


def test_images_keep_their_side_when_more_are_added(
    rooms: Path, zeros_and_ones: Path, surgery: Surgery
) -> None:
    data = rooms / "data"
    for label in ("0", "1"):
        shutil.copytree(zeros_and_ones / "val" / label, data / label)
    assert surgery("finetune", data, "--name", "d", *OPTIONS).code == 0
    first = json.loads((Store().resolve("d@1").path / "split.json").read_text())
    assert sorted(set(first.values())) == ["train", "val"]
    for label in ("0", "1"):
        shutil.copytree(zeros_and_ones / "train" / label, data / label, dirs_exist_ok=True)
    more = surgery("finetune", data, "--name", "d", *OPTIONS, "--seed", "9")
    assert more.code == 0
    assert "earlier images on their side" in more.err
    second = json.loads((Store().resolve("d@2").path / "split.json").read_text())
    assert len(second) > len(first)
    assert {key: second[key] for key in first} == first
