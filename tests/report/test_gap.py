"""The generalisation gap: known scores, its interval, and the training images that it is measured on."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from unsealed import make_labels, write_graph

from surgery.artifact.manifest import InputSpec, Manifest, OutputSpec
from surgery.artifact.session import open_session
from surgery.artifact.store import Store
from surgery.cli import main
from surgery.data.readers import read_table
from surgery.data.targets import resolve_target
from surgery.report import gap as gap_module
from surgery.report.gap import Gap, measure_gap

RED, GREEN, BLUE = (200, 0, 0), (0, 200, 0), (0, 0, 200)
COLOURS = {"blue": BLUE, "green": GREEN, "red": RED}


def gap_of(version: Any, train: list[Any]) -> Gap:
    session = open_session(version.folder / "model.onnx", "cpu")
    manifest, targets = version.manifest, version.targets
    return measure_gap(session, manifest, train, targets, version.val, lambda done, total: None)


def test_the_gap_is_what_train_is_better_by(tmp_path: Path) -> None:
    version = make_labels(tmp_path, [RED, GREEN, BLUE, BLUE], [0, 1, 2, 0])  # three are right
    train = version.table.of("train")
    found = gap_of(version, train[:3])
    assert (found.metric, found.images, found.train) == ("accuracy", 3, 1.0)
    assert found.value == pytest.approx(0.25)
    assert found.low <= found.value <= found.high
    assert gap_of(version, train).value == 0.0
    assert gap_of(version, train[3:]).value == pytest.approx(-0.75)


def test_the_interval_holds_zero_only_where_the_sides_are_alike(tmp_path: Path) -> None:
    version = make_labels(tmp_path, [RED] * 10 + [BLUE] * 10, [0] * 20)  # one half is right
    train = version.table.of("train")
    clear = gap_of(version, train[:10])
    assert 0 < clear.low < 0.5 < clear.high
    same = gap_of(version, train)
    assert same.low < 0 < same.high


def test_no_more_images_are_scored_than_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = make_labels(tmp_path, [RED] * 8, [0] * 8)
    monkeypatch.setitem(gap_module.MOST, "classify", 5)
    assert gap_of(version, version.table.of("train")).images == 5


def draw(path: Path, colour: tuple[int, int, int], seed: int) -> None:
    """An image of about one colour, unlike all others."""
    noise = np.random.default_rng(seed).integers(0, 50, (24, 24, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((noise + np.array(colour)).astype(np.uint8)).save(path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Images of one colour by its name; of val one green is called red."""
    for split in ("train", "val"):
        for name, colour in COLOURS.items():
            for k in range(4):
                wrong = split == "val" and name == "red" and k == 0
                path = tmp_path / "data" / split / name / f"{k}.png"
                draw(path, GREEN if wrong else colour, zlib.crc32(f"{split}{name}{k}".encode()))
    return tmp_path / "data"


@pytest.fixture
def stored(data: Path) -> None:
    """A version that answers the strongest colour, trained on that data."""
    classes = ("red", "green", "blue")
    table = read_table(data)
    table = resolve_target(table, classes).select(table)
    manifest = Manifest(
        "colours", "classify", "2025-01-31T12:00:00+00:00", "0", InputSpec("resize", 20, 16),
        OutputSpec("softmax", classes), data={"path": str(data), "fingerprint": table.fingerprint()},
    )  # fmt: skip
    with Store().stage("colours") as staging:
        write_graph(staging.path / "model.onnx", False, 3)
        staging.commit(manifest)


def evaluate(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    assert main(["evaluate", "colours", *map(str, words), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.usefixtures("stored")
def test_every_evaluation_states_the_gap(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = evaluate(capsys, data)
    assert found["scores"]["accuracy"] == pytest.approx(11 / 12)
    assert found["gap"]["value"] == pytest.approx(1 / 12)
    assert found["gap"]["images"] == 12
    assert found["gap"]["low"] <= found["gap"]["value"] <= found["gap"]["high"]
    assert evaluate(capsys, data, "--split", "train")["gap"] is None
    assert evaluate(capsys, data, "--no-gap")["gap"] is None
    assert main(["evaluate", "colours", str(data)]) == 0
    assert "gap to train    +0.0833" in capsys.readouterr().out


@pytest.mark.usefixtures("stored")
def test_other_data_is_held_against_the_images_of_the_training(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    for name, colour in COLOURS.items():
        for split in ("train", "val"):
            path = other / split / name / "0.png"
            draw(path, RED if split == "train" else colour, zlib.crc32(f"other{split}{name}".encode()))
    found = evaluate(capsys, other)
    assert (found["gap"]["value"], found["gap"]["images"]) == (0.0, 12)
    data.rename(tmp_path / "moved")
    assert evaluate(capsys, other)["gap"] is None
    assert main(["evaluate", "colours", str(other)]) == 0
    assert f"the data of the training is not at {data}" in capsys.readouterr().out
