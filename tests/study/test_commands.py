"""`surgery study compare` and `criticality`, and `surgery passport`, on tiny versions of a store."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_versions import draw_boxes, draw_stripes, store_version

from surgery.artifact.errors import ConfigError, DataError, StoreError, SurgeryError
from surgery.artifact.passports import find_passport
from surgery.artifact.store import Store
from surgery.cli import main
from surgery.study import line, pairs, parts
from surgery.study.subject import read_checkpoint, read_subject
from surgery.train.checkpoint import Progress, save_checkpoint


@pytest.fixture
def stripes(tmp_path: Path) -> Path:
    return draw_stripes(tmp_path / "stripes")


def ask(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, dict[str, Any], str]:
    """Run a command with --json; return its code, its answer and what it said."""
    capsys.readouterr()
    code = main([*map(str, words), "--json"])
    printed = capsys.readouterr()
    return code, json.loads(printed.out), printed.err


def test_a_model_is_like_itself_in_everything(stripes: Path, capsys: Any) -> None:
    store_version(stripes)
    code, found, said = ask(capsys, "study", "compare", "tiny", "tiny@1", "--points", 3)
    assert code == 0
    assert set(found["cka"].values()) == {1.0}
    assert set(found["distance"].values()) == {0.0}
    assert (found["kappa"], found["barrier"], found["basin"]) == (1.0, 0.0, None)
    assert list(found["cka"])[-1] in said or "either will do" in said


def test_two_models_are_compared_and_the_files_are_there(stripes: Path, capsys: Any) -> None:
    store_version(stripes)
    store_version(stripes, moved_by=1)
    words = ("study", "compare", "tiny@1", "tiny@2", stripes, "--basin", 2, "--points", 5)
    code, found, _ = ask(capsys, *words)
    assert code == 0
    assert all(-1 <= value < 1 for value in found["cka"].values())
    assert all(value > 0 for value in found["distance"].values())
    assert [row["t"] for row in found["line"]["points"]] == [0, 0.25, 0.5, 0.75, 1]
    losses = found["mistakes"]["losses"]
    ends = [found["line"]["points"][k]["loss"] for k in (0, -1)]
    assert ends == pytest.approx(losses, abs=1e-6)
    assert len(found["said"]) == 2
    folder = parts.study_folder("compare-tiny@1-tiny@2")
    assert json.loads((folder / "study.json").read_text()) == found
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    page = (folder / "study.html").read_text()
    assert "default-src 'none'" in page
    assert "<script" not in page
    assert "kappa" in (folder / "table.txt").read_text()


def test_a_line_without_a_finite_loss_is_left_out_and_not_kept(
    stripes: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_version(stripes)
    store_version(stripes, moved_by=1)
    words = ("study", "compare", "tiny@1", "tiny@2", "--basin", 0, "--points", 3)
    whole = line.measure
    with monkeypatch.context() as patch:
        patch.setattr(line, "measure", lambda *given: replace(whole(*given), loss=math.nan))
        code, found, _ = ask(capsys, *words)
    assert (code, found["line"], found["barrier"]) == (0, None, None)
    assert "no finite number" in found["missing"]["line"]
    assert "There is no line between them" in found["said"][0]
    assert found["cka"]
    assert ask(capsys, *words)[1]["barrier"] is not None


def test_runs_whose_line_is_missing_are_told(
    stripes: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for k in range(2):
        store_version(stripes, "kept", moved_by=k)
    whole = line.measure
    monkeypatch.setattr(line, "measure", lambda *given: replace(whole(*given), loss=math.inf))
    words = ("--pretrained", "kept@1", "kept@2", "--points", 3, "--basin", 0)
    code, _, said = ask(capsys, "study", "compare", *words)
    assert code == 0
    assert "Not measured: the line of kept@1 and kept@2" in said.replace("\n", " ")


def test_what_is_finished_is_read_and_other_inputs_are_computed(
    stripes: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_version(stripes)
    store_version(stripes, moved_by=1)
    words = ("study", "compare", "tiny@1", "tiny@2", "--basin", 1, "--points", 3)

    def fail(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:  # stopped when CKA, distances and mistakes are done
        patch.setattr(pairs, "walk_line", fail)
        assert main(list(map(str, words))) == 1
        assert "Repeat the command" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setattr(pairs, "compare_stages", fail)
        patch.setattr(pairs, "measure_distances", fail)
        first = ask(capsys, *words)[1]
    assert first["barrier"] is not None
    stages = [stage.name for stage in read_subject("tiny@1").model.backbone.info]
    assert list(first["cka"]) == stages  # also as it was read
    with monkeypatch.context() as patch:
        for name in ("compare_stages", "measure_distances", "walk_line", "probe_basin"):
            patch.setattr(pairs, name, fail)
        assert ask(capsys, *words)[1] == first
        assert main([*map(str, words), "--images", "6"]) == 1  # other images, so nothing is finished


def test_a_start_is_what_training_began_with(stripes: Path, capsys: Any) -> None:
    stored = store_version(stripes, first=3)
    start, end = read_subject("tiny@1:start"), read_subject("tiny")
    assert start.label == "tiny@1:start"
    kept = [key for key in start.state if key.startswith("backbone.stages.2.")]
    assert all(start.state[key].equal(end.state[key]) for key in kept)
    assert not start.state["head.linear.weight"].equal(end.state["head.linear.weight"])
    with pytest.raises(StoreError, match="'start' only"):
        read_subject(f"{stored.ref}:end")


def test_a_checkpoint_is_the_average_that_was_judged_and_carries_the_name_of_its_run(
    stripes: Path, tmp_path: Path
) -> None:
    stored = store_version(stripes)
    raw, average = read_subject("tiny:start"), read_subject("tiny")
    labels = set()
    for run in ("tiny-a", "tiny-b"):
        folder = tmp_path / run / "checkpoints"
        folder.mkdir(parents=True)
        path = save_checkpoint(folder, Progress(epoch=3), raw.state, None, "all", average.state)
        found = read_checkpoint(path, stored)
        assert found.digest == average.digest
        labels.add(found.label)
    assert labels == {f"tiny-{run}/epoch-0003-step-000000" for run in "ab"}


def test_models_of_other_classes_share_what_they_can(tmp_path: Path, capsys: Any) -> None:
    data = draw_stripes(tmp_path / "stripes")
    other = draw_stripes(tmp_path / "others")
    for split in ("train", "val"):
        (other / split / "lying").rename(other / split / "upright")
    store_version(data, "first")
    store_version(other, "second", moved_by=1)
    code, found, _ = ask(capsys, "study", "compare", "first", "second")
    assert code == 0
    assert found["kappa"] is None
    assert found["barrier"] is None
    assert "other classes" in found["missing"]["kappa"]
    assert found["cka"]


def test_models_with_nothing_in_common_are_refused(tmp_path: Path, capsys: Any) -> None:
    store_version(draw_stripes(tmp_path / "stripes"), "labels")
    store_version(draw_boxes(tmp_path / "boxes"), "masks")
    code, answer, _ = ask(capsys, "study", "compare", "labels", "masks")
    assert code == 2
    assert "nothing to compare" in answer["error"]["message"]


def test_masks_are_compared_by_pixels(tmp_path: Path, capsys: Any) -> None:
    data = draw_boxes(tmp_path / "boxes")
    store_version(data)
    store_version(data, moved_by=1)
    code, found, _ = ask(capsys, "study", "compare", "tiny@1", "tiny@2", "--points", 3, "--basin", 0)
    assert code == 0
    facts = found["mistakes"]
    assert facts["unit"] == "pixels"
    assert facts["neither"] + facts["first"] + facts["second"] + facts["both"] == 4 * 40 * 48


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("tiny",), "1 model(s) named"),
        (("tiny", "tiny", "--points", "2"), "--points 2"),
        (("tiny", "tiny", "--images", "3"), "--images 3"),
        (("--pretrained", "tiny"), "name one model"),
        (("tiny", "tiny", "--random", "tiny"), "both were given"),
    ],
)
def test_wishes_that_cannot_be_are_refused_before_anything_is_read(
    capsys: Any, words: tuple[str, ...], wanted: str
) -> None:
    code, answer, _ = ask(capsys, "study", "compare", *words)
    assert code == 2
    assert wanted in answer["error"]["message"]


def test_data_that_is_gone_is_named(stripes: Path, capsys: Any) -> None:
    store_version(stripes)
    stripes.rename(stripes.with_name("moved"))
    code, answer, _ = ask(capsys, "study", "compare", "tiny", "tiny")
    assert (code, answer["error"]["code"]) == (2, DataError.code)
    assert str(stripes) in answer["error"]["message"]


def test_runs_by_their_starts_make_a_table_of_kinds(stripes: Path, capsys: Any) -> None:
    for k in range(2):
        store_version(stripes, "kept", seed=5, scale=0.05, moved_by=k)
        store_version(stripes, "fresh", seed=10 + k, scale=0.3, moved_by=k)
    words = ("--pretrained", "kept@1", "kept@2", "--random", "fresh@1", "fresh@2")
    code, found, _ = ask(capsys, "study", "compare", *words, "--points", 3, "--basin", 2)
    assert code == 0
    kinds = {row["kind"]: row for row in found["kinds"]}
    counts = {kind: row["pairs"] for kind, row in kinds.items()}
    assert counts == {"P, P-T": 2, "P-T, P-T": 1, "P-T, RI-T": 4, "RI-T, RI-T": 1, "RI, RI-T": 2, "RI, RI": 1}
    assert kinds["P-T, P-T"]["distance"]["mean"] < kinds["RI-T, RI-T"]["distance"]["mean"]
    assert kinds["RI, RI"]["barrier"] is None
    assert set(found["basins"]) == {"P-T", "RI-T"}
    assert len(found["said"]) == 2


def test_weights_are_digested_once_for_each_model(
    stripes: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for k in range(4):
        store_version(stripes, moved_by=k)
    digested: list[Any] = []
    monkeypatch.setattr(
        "surgery.study.subject.digest_state",
        lambda state: digested.append(state) or parts.digest_state(state),
    )
    words = ("--pretrained", "tiny@1", "tiny@2", "tiny@3", "tiny@4", "--points", 3, "--basin", 1)
    assert ask(capsys, "study", "compare", *words)[0] == 0
    assert len(digested) == 8  # four runs and what each began with


def test_members_of_another_kind_are_refused_before_anything_is_computed(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, other = draw_stripes(tmp_path / "stripes"), draw_stripes(tmp_path / "others")
    for split in ("train", "val"):
        (other / split / "lying").rename(other / split / "upright")
    store_version(data, "first")
    store_version(data, "same", moved_by=1)
    store_version(other, "second")
    store_version(draw_boxes(tmp_path / "boxes"), "masks")
    monkeypatch.setattr("surgery.recipes.study_compare.read_data", lambda *given: pytest.fail("it went on"))
    words = ("--pretrained", "first", "same", "--random", "second", "masks")
    code, answer, _ = ask(capsys, "study", "compare", *words)
    assert (code, answer["error"]["code"]) == (2, ConfigError.code)
    lines = answer["error"]["message"].splitlines()
    assert [line.split()[0] for line in lines] == ["second@1", "masks@1"]
    assert "other classes" in lines[0]
    assert "same@1" not in answer["error"]["message"]


def test_runs_with_the_same_weights_have_no_basin_and_the_rest_is_told(stripes: Path, capsys: Any) -> None:
    for _ in range(2):
        store_version(stripes, "kept")
    for k in range(2):
        store_version(stripes, "fresh", seed=10 + k, moved_by=k)
    words = ("--pretrained", "kept@1", "kept@2", "--random", "fresh@1", "fresh@2")
    code, found, said = ask(capsys, "study", "compare", *words, "--points", 3, "--basin", 1)
    assert code == 0
    assert set(found["basins"]) == {"RI-T"}
    assert found["missing"] == {"basin of P-T": "these runs have the same weights"}
    assert "Not measured: the basin of P-T" in said.replace("\n", " ")


def test_criticality_of_every_module_is_told(stripes: Path, capsys: Any) -> None:
    store_version(stripes, first=3, scale=1.0)
    code, found, _ = ask(capsys, "study", "criticality", "tiny", "--draws", 1, "--seeds", 2)
    assert code == 0
    by_depth = {row["module"]: row for row in found["modules"]}
    assert [row["depth"] for row in found["modules"]] == sorted(row["depth"] for row in found["modules"])
    assert all(row["criticality"] == 0 for row in by_depth.values() if row["depth"] < 3)
    assert all(row["low"] <= row["criticality"] <= row["high"] for row in by_depth.values())
    assert found["criticality"]["head"] == by_depth["head"]["criticality"]
    folder = parts.study_folder("criticality-tiny@1")
    files = {path.name for path in folder.iterdir() if path.is_file()}
    assert files == {"study.json", "study.html", "table.txt", "figure.png"}
    before = sorted((folder / "parts").iterdir())
    assert ask(capsys, "study", "criticality", "tiny", "--draws", 1, "--seeds", 2)[1] == found
    assert sorted((folder / "parts").iterdir()) == before


def test_checkpoints_that_were_not_kept_are_asked_for(stripes: Path, capsys: Any) -> None:
    store_version(stripes)
    code, answer, _ = ask(capsys, "study", "criticality", "tiny", "--checkpoints")
    assert (code, answer["error"]["code"]) == (2, ConfigError.code)
    assert "--keep-checkpoints all" in answer["error"]["hint"]


def test_a_passport_lies_beside_the_version_and_goes_with_it(stripes: Path, capsys: Any) -> None:
    stored = store_version(stripes, first=2)
    store_version(stripes)
    before = {path: path.read_bytes() for path in stored.path.iterdir()}
    code, found, said = ask(capsys, "passport", "tiny@1", "--images", 12)
    assert code == 0
    page = find_passport(stored)
    assert page is not None
    assert page == stored.path.parent / "passports" / "1" / "passport.html"
    assert str(page) in said
    assert json.loads(page.with_name("passport.json").read_text()) == found
    assert {path: path.read_bytes() for path in stored.path.iterdir()} == before
    Store().verify("tiny", 1)
    stages = list(found["cka"])
    assert [found["cka"][stage] for stage in stages[:2]] == [1.0, 1.0]
    assert found["cka"][stages[2]] < 1
    assert [part["from"] for part in found["layers"]] == ["drawn at random, seed 5"] * len(found["layers"])
    assert {row["module"] for row in found["criticality"]["modules"]} == set(found["depths"])
    assert "gap" in found["missing"]  # the tiny version's graph cannot be run
    text = page.read_text()
    assert found["data"] == str(stripes)  # the page may be anybody's to see
    assert str(stripes.parent) not in text
    assert "each side of stripes." in text
    assert text.count("<style") == 1
    assert " style=" not in text  # the service lets a browser use that one block only
    assert ask(capsys, "models", "show", "tiny@1")[1]["passport"] == str(page)
    assert ask(capsys, "models", "show", "tiny@2")[1]["passport"] is None
    Store().promote("tiny", 2)
    Store().remove("tiny", 1)
    assert not page.parent.exists()


def test_a_passport_without_the_data_says_what_is_missing(stripes: Path, capsys: Any) -> None:
    stored = store_version(stripes)
    stripes.rename(stripes.with_name("moved"))
    code, found, said = ask(capsys, "passport", "tiny")
    assert code == 0
    assert set(found["missing"]) == {"cka", "line", "barrier", "criticality", "gap"}
    assert "not in it: cka" in said
    assert set(found["distance"]) == set(found["depths"])  # no image is needed for it
    assert all(value > 0 for value in found["distance"].values())
    assert found["layers"]
    page = find_passport(stored)
    assert page is not None
    assert str(stripes) in found["missing"]["cka"]
    assert str(stripes.parent) not in page.read_text()
    assert "<li>cka: stripes: the data that tiny@1 was trained on is not there</li>" in page.read_text()


@pytest.mark.parametrize(
    ("broken", "parts"),
    [
        ("compare_with_start", {"cka", "line", "barrier"}),
        ("measure_criticality", {"criticality"}),
        ("measure_distance", {"distance"}),
    ],
)
def test_a_step_of_a_passport_that_fails_is_told_of_all_its_parts(
    stripes: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, broken: str, parts: set[str]
) -> None:
    def fail(*_: Any) -> None:
        raise SurgeryError("logits that are not finite")

    store_version(stripes)
    monkeypatch.setattr(f"surgery.recipes.passport.{broken}", fail)
    code, found, _ = ask(capsys, "passport", "tiny")
    assert code == 0
    assert {part for part, why in found["missing"].items() if "not finite" in why} == parts
    assert set(found["missing"]) == parts | {"gap"}
    assert not any(found[part] for part in parts)
