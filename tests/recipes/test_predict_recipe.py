"""`surgery predict` says how novel each image is, in every form of its answer."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from tiny_colours import add_colours, draw_colours

from surgery.artifact.image import read_image
from surgery.artifact.session import answer_image, open_gauge, open_version
from surgery.cli import main


def test_novelty_is_that_of_the_one_path_in_json_text_and_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = add_colours()
    near, far = draw_colours(tmp_path / "near", 3), draw_colours(tmp_path / "far", 1, 200)
    (far / "torn.png").write_bytes(b"no image")
    session = open_version(stored, "cpu")
    gauge = open_gauge(stored, session)
    paths = [*sorted(near.iterdir()), far / "000.png"]
    answers = [answer_image(session, stored.manifest, read_image(path), gauge=gauge) for path in paths]
    wanted = [answer.novelty for answer in answers]
    assert wanted[-1] == 1 / 120
    assert all(novelty is not None and novelty > 0.02 for novelty in wanted[:-1])

    assert main(["predict", "colours", *map(str, paths), "--out", str(tmp_path / "out"), "--json"]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert [row["novelty"] for row in results] == wanted
    with (tmp_path / "out" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["novelty"]) for row in rows] == pytest.approx(wanted, abs=1e-6)
    with pytest.raises(SystemExit):
        main(["predict", "colours", str(far)])
    out = capsys.readouterr().out
    assert "000.png" in out
    assert "(novelty 0.0083)" in out
    assert "torn.png: no answer" in out


def test_a_version_that_cannot_tell_says_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add_colours(statistics=False)
    images = draw_colours(tmp_path / "images", 1)
    assert main(["predict", "colours", str(images), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["novelty"] is None
    assert main(["predict", "colours", str(images), "--out", str(tmp_path / "out")]) == 0
    assert "novelty" not in capsys.readouterr().out
    header, row = (tmp_path / "out" / "predictions.csv").read_text().splitlines()
    assert (header.split(",")[2], row.split(",")[2]) == ("novelty", "")
