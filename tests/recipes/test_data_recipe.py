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


@pytest.fixture
def few(digits):
    """Twelve of each digit."""
    for folder in digits.iterdir():
        for path in sorted(folder.iterdir())[12:] if folder.is_dir() else ():
            path.unlink()
    return digits


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


def test_the_page_lies_among_the_runs_and_its_path_is_told(few, capsys, rooms):
    assert main(["data", "check", str(few), "--html"]) == 0
    out = capsys.readouterr()
    page = rooms / "runs" / "data-check-digits.html"
    assert f"report: {page}" in out.err.splitlines()
    assert str(page) not in out.out
    assert [path.name for path in page.parent.iterdir()] == [page.name]
    text = page.read_text("utf-8")
    assert text.rstrip().endswith("</html>")
    assert text.count("<img ") == 10 * 8
    assert main(["data", "check", str(few)]) == 0
    assert "report: " not in capsys.readouterr().err


def test_the_page_is_written_where_there_are_problems(few, capsys, tmp_path):
    (few / "3" / "x.png").write_bytes(b"broken")
    page = tmp_path / "there" / "page.html"
    assert main(["data", "check", str(few), "--out", str(page)]) == 2
    assert "3/x.png" in capsys.readouterr().err
    assert "3/x.png" in page.read_text("utf-8")
    with pytest.raises(SystemExit) as caught:
        main(["data", "check", str(few), "--html", "--json", "--out", str(page)])
    assert caught.value.code == 2
    out = capsys.readouterr()
    told = json.loads(out.out)
    assert (told["ok"], told["html"]) == (False, str(page))
    assert f"report: {page}" in out.err


def test_json_names_the_page_only_where_there_is_one(few, capsys, rooms):
    assert main(["data", "check", str(few), "--json", "--html"]) == 0
    assert json.loads(capsys.readouterr().out)["html"] == str(rooms / "runs" / "data-check-digits.html")
    assert main(["data", "check", str(few), "--json"]) == 0
    assert "html" not in json.loads(capsys.readouterr().out)


def test_a_page_that_cannot_be_written_is_told_first(few, capsys, tmp_path):
    photo = few / "3" / "photo.jpg"
    assert main(["data", "check", str(few), "--out", str(photo)]) == 2
    assert "a page is a file that ends in .html" in capsys.readouterr().err
    assert not photo.exists()
    (tmp_path / "file").write_text("")
    assert main(["data", "check", str(few), "--out", str(tmp_path / "file" / "page.html")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_a_page_that_fails_leaves_the_old_one(few, capsys, rooms, monkeypatch):
    page = rooms / "runs" / "data-check-digits.html"
    page.parent.mkdir()
    page.write_text("old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("surgery.artifact.disk.os.fsync", fail)
    assert main(["data", "check", str(few), "--html"]) == 2
    assert f"{page}: cannot be written (No space left on device)" in capsys.readouterr().err
    assert page.read_text() == "old"
    assert [path.name for path in page.parent.iterdir()] == [page.name]
