"""What a model was trained on is read again as it was read for its training."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from PIL import Image

from surgery.artifact.manifest import OutputSpec
from surgery.artifact.store import Store
from surgery.config import FinetuneConfig
from surgery.data.splits import record_split
from surgery.recipes.reading import read_as_trained, read_to_train
from surgery.train.reporting import Reporter


@pytest.fixture
def ambiguous(tmp_path):
    """Class folders a and b, and a list that calls the same images x and y."""
    rows = ["path,label,split"]
    for i in range(8):
        name = f"{'ab'[i // 4]}/{i}.png"
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (30 * i, 255 - 30 * i, 90)).save(tmp_path / "data" / name)
        rows.append(f"{name},{'xy'[i // 4]},{('train', 'val')[i % 2]}")
    (tmp_path / "data" / "list.csv").write_text("\n".join(rows))
    return tmp_path / "data"


def version(folder, classes, **data):
    """Stand for a stored version that answers these classes."""
    output = OutputSpec(activation="softmax", classes=classes)
    manifest = SimpleNamespace(name="m", version=1, task="classify", output=output, data=data)
    return SimpleNamespace(manifest=manifest, path=folder)


@pytest.mark.parametrize(
    ("told", "classes"),
    [("folders", ("a", "b")), ("csv", ("x", "y")), (None, ("x", "y")), ("gone", ("x", "y"))],
)
def test_the_format_of_the_training_is_kept(ambiguous, tmp_path, told, classes):
    table, _ = read_as_trained(ambiguous, version(tmp_path, classes, format=told), Reporter())
    assert table.classes == classes


def test_data_of_another_format_is_found_out(ambiguous, tmp_path):
    (ambiguous / "list.csv").unlink()
    table, _ = read_as_trained(ambiguous, version(tmp_path, ("a", "b"), format="csv"), Reporter())
    assert table.classes == ("a", "b")


@pytest.fixture
def drawn(tmp_path):
    """Twelve images of two classes without a split."""
    for i in range(12):
        path = tmp_path / "data" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (20 * i, 255 - 20 * i, 90)).save(path)
    return tmp_path / "data"


def sides(config, report):
    return record_split(read_to_train(config, report)[0].items)


def test_weights_of_the_store_bring_their_split(drawn, tmp_path, monkeypatch, capsys):
    theirs = sides(FinetuneConfig(str(drawn), "first", seed=1), Reporter())
    mine = FinetuneConfig(str(drawn), "second", seed=2)
    assert sides(mine, Reporter()) != theirs
    stored = version(tmp_path / "stored", ("a", "b"), path=str(drawn.resolve()))
    stored.ref = "first@1"
    stored.path.mkdir()
    (stored.path / "split.json").write_text(json.dumps(theirs))
    monkeypatch.setattr(Store, "list_versions", lambda self, name: [])
    monkeypatch.setattr(Store, "resolve", lambda self, ref: {"first": stored}[ref])
    capsys.readouterr()
    assert sides(replace(mine, weights="first"), Reporter()) == theirs
    assert "split: that of first@1" in capsys.readouterr().err
    stored.manifest.data["path"] = "/elsewhere"
    assert sides(replace(mine, weights="first"), Reporter()) != theirs
    assert "split: that of" not in capsys.readouterr().err


def test_weights_that_the_store_lacks_are_no_matter_of_the_data(drawn):
    config = FinetuneConfig(str(drawn), "second", weights="nobody")
    assert sides(config, Reporter()) == sides(replace(config, weights="imagenet"), Reporter())
