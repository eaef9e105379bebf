"""`surgery data` on the command line: one report, one JSON object, exit code 2."""

from __future__ import annotations

import json

import pytest

from surgery.cli import main


@pytest.fixture
def digits(tmp_path, capsys):
    out = tmp_path / "digits"
    assert main(["data", "sample", "digits", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    return out


def test_whole_data_is_summed_up(digits, capsys):
    assert main(["data", "check", str(digits)]) == 0
    out = capsys.readouterr()
    assert "images: 1438 train, 359 val (split: 80/20 stratified, seed 0)" in out.out
    assert "no problems" in out.err


def test_problems_end_with_2_and_are_all_named(digits, capsys):
    (digits / "3" / "x.png").write_bytes(b"broken")
    (digits / "4" / "y.jpg").write_bytes(b"")
    assert main(["data", "check", str(digits)]) == 2
    err = capsys.readouterr().err
    assert "3/x.png" in err
    assert "4/y.jpg" in err


def test_json_is_one_object_with_every_problem(digits, capsys):
    (digits / "3" / "x.png").write_bytes(b"broken")
    with pytest.raises(SystemExit) as caught:
        main(["data", "check", str(digits), "--json"])
    assert caught.value.code == 2
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is False
    assert [(p["kind"], p["path"]) for p in told["problems"]] == [("unreadable image", "3/x.png")]


def test_the_format_may_be_told_and_is_told_on(digits, capsys):
    rows = [f"{path.relative_to(digits)},{i % 2}" for i, path in enumerate(sorted(digits.rglob("*.png")))]
    (digits / "labels.csv").write_text("\n".join(["path,label", *rows]))
    assert main(["data", "check", str(digits), "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["classes"]) == ["0", "1"]
    assert main(["data", "check", str(digits), "--format", "folders"]) == 0
    assert f"finetune {digits} --format folders --name NAME" in capsys.readouterr().err
    assert main(["data", "check", str(digits), "--format", "folder"]) == 2
    assert "yolo, coco" in capsys.readouterr().err


def test_cars_are_drawn_as_wished(tmp_path, capsys):
    out = tmp_path / "cars"
    wish = ["--n-train", "2", "--n-val", "1", "--domain", "night", "--size", "96x64", "--seed", "4"]
    assert main(["data", "sample", "cars", str(out), *wish]) == 0
    assert main(["data", "check", str(out), "--ignore", "unlabelled", "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["images"] == {"train": 2, "val": 1}
    assert told["sizes"]["largest"] == [96, 64]
    assert len(told["fingerprint"]) == 64
