"""The commands of `surgery study`, from a folder to figure, table and JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from surgery.cli import main
from surgery.study.result import Curve, Result, to_csv, to_text, write_result
from surgery.study.spread import Spread

FILES = ("study.json", "table.csv", "table.txt", "figure.png", "figure.svg", "study.md")


def ask(capsys, *arguments: object) -> dict:
    assert main(["study", *map(str, arguments), "--json"]) == 0
    found: dict = json.loads(capsys.readouterr().out)
    folder = Path(found["folder"])
    assert {path.name for path in folder.iterdir()} == set(FILES)
    assert len(found["sentences"]) == 2
    with Image.open(folder / "figure.png") as image:
        assert image.size[0] > 400
    return found


def test_transfer_from_a_folder(colours, capsys):
    common = ("--seeds", 1, "--epochs", 1, "--per-class", 4)
    found = ask(capsys, "transfer", colours, "--layers", "2,5", *common)
    assert [row["n"] for row in found["table"]] == [0, 2, 5]
    assert len(found["trainings"]) == 2 + 2 * 2 * 5
    groups = colours.parent / "groups.yaml"
    groups.write_text("warm: [red, yellow]\ncold: [blue, green]\n")
    named = ask(capsys, "transfer", colours, "--split", groups, "--layers", "5", *common)
    assert {tuple(each["target"]) for each in named["trainings"]} == {("red", "yellow"), ("blue", "green")}


def test_memorise_and_shuffle_from_a_folder(colours, capsys):
    common = ("--seeds", 2, "--epochs", 2, "--per-class", 4)
    found = ask(capsys, "memorise", colours, "--plain", *common)
    assert len(found["table"]) == 9
    assert found["built"]["error"] == 0
    small = ("--backbone", "yosinski_small", "--weights", "random", "--image-size", 32, "--blocks", "8,16")
    shuffled = ask(capsys, "shuffle", colours, *small, *common)
    assert shuffled["blocks"] == [32, 16, 8]
    assert shuffled["permutation"] == "one for all images"
    assert (
        ask(capsys, "shuffle", colours, *small, "--permute", "each", *common)["permutation"]
        == "each image its own"
    )


def test_a_file_of_groups_that_holds_none_is_not_taken_for_random_halves(colours, capsys):
    groups = colours.parent / "groups.yaml"
    groups.write_text("# natural: [bird, cat]\n")
    assert main(["study", "transfer", str(colours), "--split", str(groups), "--image-size", "32"]) == 2
    assert f"--split {groups}: the file is empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--seeds", "0", "--jobs", "0"), "--seeds 0: 1 or more\n--jobs 0: 1 or more"),
        (("--layers", "9"), "yosinski_small has the layers 1 to 7"),
        (("--layers", "a"), "is no list of whole numbers"),
        (("--split", "none.yaml"), "neither random nor a YAML file"),
        (("--backend", "slurm"), "there is loky, dask, ray"),
    ],
)
def test_mistakes_end_with_2_and_say_what_to_do(colours, capsys, arguments, said):
    assert main(["study", "transfer", str(colours), *arguments]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("study", ["transfer", "memorise"])
def test_images_that_are_too_small_for_the_network_are_refused_before_they_are_read(tmp_path, capsys, study):
    assert main(["study", study, str(tmp_path / "nowhere"), "--image-size", "28"]) == 2
    said = capsys.readouterr().err
    assert "--image-size 28: too small for yosinski_small" in said
    assert "--image-size 31 is the least it takes" in said


def test_masks_are_refused(tmp_path, capsys):
    for folder in ("images", "masks"):
        (tmp_path / "data" / folder).mkdir(parents=True)
        Image.new("L" if folder == "masks" else "RGB", (32, 32)).save(tmp_path / "data" / folder / "0.png")
    (tmp_path / "data" / "classes.txt").write_text("ground\nbox\n")
    assert main(["study", "memorise", str(tmp_path / "data")]) == 2
    assert "classify is asked for" in capsys.readouterr().err


def test_files_say_the_same_and_come_out_the_same_twice(tmp_path):
    curve = Curve("one", [1.0, 2.0], [Spread(0.5, 0.1, 3), Spread(0.6, None, 1)])
    rows = [{"n": 1, "value": "0.500 ± 0.100"}, {"n": 2, "more": 0.25}]
    result = Result(
        "made", "made up", ("Found.", "So do."), rows, {"x": float("nan")}, [curve], "n", "accuracy"
    )
    first, second = tmp_path / "a", tmp_path / "b"
    write_result(result, first)
    write_result(result, second)
    for name in FILES:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    assert to_csv(rows) == "n,value,more\n1,0.500 ± 0.100,\n2,,0.25\n"
    assert to_text(rows).splitlines()[2] == "| 1 | 0.500 ± 0.100 |      |"
    page = (first / "study.md").read_text()
    assert "Found.\n\nSo do." in page
    assert json.loads((first / "study.json").read_text())["x"] is None
