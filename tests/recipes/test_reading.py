"""What a model was trained on is read again as it was read for its training."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from PIL import Image

from surgery.artifact.manifest import OutputSpec
from surgery.recipes.reading import read_as_trained
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
