"""`surgery drift`: what it compares, what it refuses, and what it says to do next."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_colours import add_colours, draw_colours

from surgery.cli import main
from surgery.recipes import drift as module


@pytest.fixture
def draw(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that draws so many images of so red colours into a folder."""
    return lambda name, count, red=100: draw_colours(tmp_path / name, count, red)


@pytest.fixture
def drift(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Any, str]]:
    """Run the command; gives its exit code, its JSON or text, and what it said."""

    def run(*arguments: object) -> tuple[int, Any, str]:
        capsys.readouterr()
        code = main(["drift", *map(str, arguments)])
        out, err = capsys.readouterr()
        return code, json.loads(out) if "--json" in arguments else out, err

    return run


def test_images_like_those_of_the_training_are_at_home(draw: Any, drift: Any) -> None:
    add_colours()
    code, answer, said = drift("colours", draw("new", 40), "--json")
    assert code == 0
    assert answer["drift"] is False
    assert (answer["model"], answer["version"], answer["precision"], answer["images"]) == (
        "colours",
        1,
        "fp32",
        40,
    )
    assert (answer["false_alarm_rate"], answer["rejects_at"]) == (0.05, 0.025)
    assert all(answer["tests"][name]["p"] > 0.025 for name in ("distance", "embedding"))
    low, high = answer["beyond"]["interval"]
    assert low <= answer["beyond"]["share"] <= high
    assert "at home" in said


def test_images_of_another_kind_have_drifted_and_adaptation_is_advised(draw: Any, drift: Any) -> None:
    add_colours()
    folder = draw("new images", 30, 220)
    code, answer, said = drift("colours", folder, "--json")
    assert (code, answer["drift"]) == (0, True)
    assert answer["next"] == f"surgery adapt colours@1 --target '{folder}'"
    assert f"next: {answer['next']}" in said
    code, text, _ = drift("colours", folder, "--false-alarm-rate", 0.01)
    assert code == 0
    assert "drift: yes at a false-alarm rate of 1.0% (a test rejects at p ≤ 0.005)" in text
    assert "100.0%" in text


@pytest.mark.parametrize("fields", [{"multilabel": True}, {"strategy": {"classifier": {}}}])
def test_labels_are_advised_where_no_adaptation_takes_the_model(draw: Any, drift: Any, fields: Any) -> None:
    add_colours(**fields)
    _, answer, _ = drift("colours", draw("new", 20, 200), "--json")
    assert answer["next"].startswith("surgery finetune DATA --name colours")


def test_a_version_without_statistics_says_how_to_get_one_with_them(draw: Any, drift: Any) -> None:
    add_colours(statistics=False)
    code, _, said = drift("colours", draw("new", 20))
    assert code == 2
    assert "surgery export colours@1" in said


def test_too_few_images_are_refused_and_copies_are_not_counted(draw: Any, drift: Any) -> None:
    add_colours()
    folder = draw("new", 9)
    code, _, said = drift("colours", folder)
    assert (code, "9 images" in said, "10 at least" in said) == (2, True, True)
    for path in list(folder.iterdir()):
        (folder / f"copy-{path.name}").write_bytes(path.read_bytes())
    code, _, said = drift("colours", folder)
    assert (code, "9 images to compare" in said, "9 of the images are copies" in said) == (2, True, True)


def test_unreadable_images_are_named_and_left_out_if_that_is_wanted(draw: Any, drift: Any) -> None:
    add_colours()
    folder = draw("new", 20)
    (folder / "torn.png").write_bytes((folder / "000.png").read_bytes()[:50])
    code, _, said = drift("colours", folder)
    assert (code, "1 of 21 images" in said, "torn.png" in said, "--skip-bad" in said) == (2, True, True, True)
    code, answer, said = drift("colours", folder, "--skip-bad", "--json")
    assert (code, answer["images"], "left out: 1" in said) == (0, 20, True)


def test_an_image_that_may_not_be_read_is_named(
    draw: Any, drift: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_colours()
    folder = draw("new", 20)

    def refuse(path: Path, *given: Any) -> Any:
        if path.name == "003.png":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, *given)

    read = Path.open
    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(Path, "read_bytes", lambda path: refuse(path, "rb").read())
    code, _, said = drift("colours", folder)
    assert (code, "1 of 20 images" in said, "003.png: cannot be read" in said) == (2, True, True)


def test_of_many_images_a_sample_is_looked_at(draw: Any, drift: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    add_colours()
    monkeypatch.setattr(module, "MOST", 12)
    folder = draw("new", 30)
    _, answer, said = drift("colours", folder, "--json")
    assert (answer["images"], "12 of the 30 images are drawn" in said) == (12, True)
    assert drift("colours", folder, "--json")[1] == answer


def test_images_of_the_spool_are_refused(draw: Any, drift: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    add_colours()
    folder = draw("spool/colours", 20, 220)
    monkeypatch.setenv("SURGERY_SPOOL", str(folder.parent))
    for given in (folder, folder.parent.parent):  # a folder that holds the spool holds its images, too
        code, _, said = drift("colours", given)
        assert (code, "chosen for being novel" in said, "--target-spool" in said) == (2, True, True)


def test_a_rate_out_of_range_and_a_path_that_is_not_there_are_refused(draw: Any, drift: Any) -> None:
    add_colours()
    assert drift("colours", draw("new", 20), "--false-alarm-rate", 2)[0] == 2
    assert drift("colours", "nowhere")[0] == 2
