"""The whole line: data in, a proven version out, the same answer from every door."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from running import TINY, Surgery
from safetensors.numpy import load_file

from surgery.artifact.image import read_image
from surgery.artifact.session import answer_image, open_session
from surgery.artifact.store import Store, StoredVersion
from surgery.cli import main
from surgery.recipes.demo import request, serving

SEGMENT = (*TINY, "--task", "segment", "--classes", "car", "--ignore", "unlabelled", "--epochs", "2")
CLASSIFY = (*TINY, "--strategy", "random", "--image-size", "32", "--augment", "none")
CLASSIFY += ("--epochs", "4", "--batch-size", "8", "--lr", "0.002")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, scenes: Path, zeros_and_ones: Path) -> Path:
    """A store with `cars@1`, a segmenter, and `digits@1`, a classifier."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        for key in ("MODELS", "RUNS", "CACHE"):
            patch.setenv(f"SURGERY_{key}", str(folder / key.lower()))
        for name, data, options in (("cars", scenes, SEGMENT), ("digits", zeros_and_ones, CLASSIFY)):
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                assert main(["finetune", str(data), "--name", name, *options, "--json"]) == 0
            stored = json.loads(out.getvalue())
            assert (stored["model"], stored["version"], stored["production"]) == (name, 1, True)
            assert stored["parity"]["passed"]
            check_report(Store().resolve(name), Path(stored["report"]))
    return folder / "models"


def check_report(stored: StoredVersion, report: Path) -> None:
    """It is one of the version's files, and holds what the run gave it."""
    assert report == stored.path / "report.html"
    assert "report.html" in Store().verify(stored.name, stored.version).manifest.files
    text = report.read_text("utf-8")
    assert text.count("<section") == (9 if stored.manifest.task == "classify" else 8)
    assert f"surgery finetune {stored.manifest.data['path']} " in text
    assert stored.manifest.data["fingerprint"] in text
    scores = stored.manifest.scores
    assert all(f"<b>{value:.3f}</b>" in text for value in scores["scores"].values())
    assert scores.get("calibration", {}).get("temperature", 1.0) == stored.manifest.output.temperature


@pytest.fixture
def room(rooms: Path, made: Path) -> Path:
    """The test's own folder, with a copy of that store."""
    shutil.copytree(made, rooms / "models")
    return rooms


def test_from_data_to_the_same_answer_everywhere(
    room: Path, scenes: Path, zeros_and_ones: Path, surgery: Surgery
) -> None:
    check_scores(scenes, zeros_and_ones, surgery)
    street = scenes / "val" / "images" / "day_00001.jpg"
    digit = next((zeros_and_ones / "val" / "1").iterdir())
    cars = surgery("predict", "cars", street, "--out", room / "out", "--json").answer["results"]
    digits = surgery("predict", "digits@1", digit, zeros_and_ones / "val", "--json").answer["results"]
    check_predictions(room, street, cars[0], len(digits))
    environment = os.environ | {"BENTOML_HOME": str(room / "bentoml")}
    with serving(environment, room / "server.log", {}, Console(quiet=True)) as url:
        headers = {"Content-Type": "image/jpeg"}
        with request(f"{url}/predict?model=cars", street.read_bytes(), headers) as reply:
            segmented = json.load(reply)
        with request(f"{url}/predict?model=digits", digit.read_bytes(), headers) as reply:
            classified = json.load(reply)
    served = np.asarray(Image.open(io.BytesIO(base64.b64decode(segmented["mask"]))))
    assert_same_mask(served, np.asarray(Image.open(cars[0]["mask"])), street)
    assert segmented["pixels"] == pytest.approx(cars[0]["pixels"], abs=1e-3)
    assert segmented["sha256"] == Store().resolve("cars").sha256()
    theirs, ours = classified["labels"], digits[0]["labels"]
    assert [row["label"] for row in theirs] == [row["label"] for row in ours]
    for one, other in zip(theirs, ours, strict=True):
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-4)


def check_scores(scenes: Path, zeros_and_ones: Path, surgery: Surgery) -> None:
    """`evaluate` finds what the manifest promises, and the classifier has learnt."""
    cars = surgery("evaluate", "cars", scenes, "--json").answer
    assert {"model": "cars", "version": 1, "split": "val", "n": 4}.items() <= cars.items()
    assert set(cars["scores"]) == {"iou", "dice", "iou_per_image", "dice_per_image"}
    assert cars["scores"] == Store().resolve("cars").manifest.scores["scores"]
    matrix = np.array(cars["confusion"]["matrix"])  # rows are the truth: rest, car
    hits, wrong = matrix[1, 1], matrix[0, 1] + matrix[1, 0]
    assert cars["scores"]["iou"] == pytest.approx(hits / (hits + wrong), abs=1e-6)
    digits = surgery("evaluate", "digits@production", zeros_and_ones, "--json").answer
    assert set(digits["scores"]) == {"accuracy", "macro_f1"}
    assert digits["scores"]["accuracy"] >= 0.8
    assert surgery("evaluate", "digits", zeros_and_ones, "--split", "test").code == 2


def check_predictions(room: Path, street: Path, cars: dict[str, object], digits: int) -> None:
    assert digits == 21
    assert cars["image"] == str(street)
    assert cars["mask"] == str(room / "out" / f"{street.stem}.png")
    mask = Image.open(str(cars["mask"]))
    assert (
        mask.size == Image.open(street).size == Image.open(room / "out" / f"{street.stem}-overlay.png").size
    )
    pixels = np.asarray(mask)
    assert set(np.unique(pixels)) <= {0, 1}
    assert cars["pixels"] == pytest.approx({"rest": (pixels == 0).mean(), "car": (pixels == 1).mean()})


def assert_same_mask(one: np.ndarray, other: np.ndarray, image: Path) -> None:
    """Equal but for ties: where the logit is zero as nearly as float32 tells."""
    stored = Store().resolve("cars")
    logit = answer_image(open_session(stored.graph(), "cpu"), stored.manifest, read_image(image)).logits[0]
    assert one.shape == other.shape == logit.shape
    assert np.abs(logit[one != other]).max(initial=0.0) <= 1e-4


def test_versions_come_and_go(room: Path, scenes: Path, surgery: Surgery) -> None:
    exported = surgery("export", "cars", "--json").answer
    assert (exported["version"], exported["parent"]) == (2, "cars@1")
    first, second = (Store().resolve(f"cars@{version}") for version in (1, 2))
    assert exported["scores"]["scores"] == first.manifest.scores["scores"]
    assert "Made from cars@1." in (second.path / "report.html").read_text("utf-8")
    assert first.manifest.files["report.html"] != second.manifest.files["report.html"]
    for name, tensor in load_file(first.path / "weights.safetensors").items():
        assert np.array_equal(tensor, load_file(second.path / "weights.safetensors")[name])

    def production() -> int:
        rows = surgery("models", "list", "--json").answer["versions"]
        assert [(row["model"], row["version"]) for row in rows][:2] == [("cars", 1), ("cars", 2)]
        return next(row["version"] for row in rows if "production" in row["aliases"])

    assert production() == 1
    assert surgery("models", "promote", "cars", 2).code == 0
    assert production() == 2
    assert surgery("evaluate", "cars", scenes, "--json").answer["version"] == 2
    assert surgery("models", "rollback", "cars").code == 0
    assert production() == 1
    assert surgery("models", "show", "cars@2", "--json").answer["parent"] == "cars@1"
    shown = surgery("models", "show", "cars@2").out
    assert "stage1: new, frozen" in shown
    assert "head: new" in shown
    assert "/report.html" in "".join(shown.split())  # a long path is broken into lines
    refused = surgery("models", "remove", "cars", 1)
    assert refused.code == 2
    assert "production" in refused.err
    assert surgery("models", "remove", "cars", 2).code == 0
    assert surgery("models", "show", "cars@2").code == 2


def test_a_recipe_repeats_its_run(room: Path, surgery: Surgery) -> None:
    first = Store().resolve("digits@1")
    again = surgery("finetune", "--recipe", first.path / "recipe.yaml", "--json").answer
    assert (again["version"], again["production"]) == (2, False)
    second = Store().resolve("digits@2")
    mine, theirs = (load_file(stored.path / "weights.safetensors") for stored in (first, second))
    assert mine.keys() == theirs.keys()
    assert all(np.array_equal(mine[name], theirs[name]) for name in mine)


def test_a_mistake_ends_with_two_and_one_json_object(surgery: Surgery, scenes: Path) -> None:
    for arguments in (
        ("finetune", scenes, "--name", "../../etc"),
        ("finetune", scenes, "--name", "cars", "--classes", "carr", "--backbone", "test_resnet"),
        ("finetune", scenes, "--name", "cars", "--strategy", "frosen"),
        ("finetune", scenes, "--name", "cars", "--no-such-option"),
        ("finetune", scenes / "nothing", "--name", "cars"),
        ("predict", "nobody", scenes),
    ):
        ran = surgery(*arguments, "--json")
        assert ran.code == 2, arguments
        error = json.loads(ran.out)["error"]
        assert set(error) == {"code", "message", "hint"}
        assert error["message"].splitlines()[0] in ran.err
        assert "Traceback" not in ran.err
    assert Store().list_names() == []
