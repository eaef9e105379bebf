"""`--strategy classical` through the whole line: compared, joined, proven, stored, served, made again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from running import TINY, Surgery

from surgery.artifact.errors import ParityError
from surgery.artifact.store import Store
from surgery.deliver import classifier as classifier_module
from surgery.train import classifiers

OPTIONS = (*TINY, "--strategy", "classical", "--image-size", "32", "--stages", "stage2,stage4")


@pytest.fixture(autouse=True)
def small_forests(monkeypatch):
    monkeypatch.setattr(classifiers, "TREES", 20)


def test_from_images_to_a_graph_that_answers_and_is_made_again(
    rooms: Path, zeros_and_ones: Path, surgery: Surgery
) -> None:
    ran = surgery("finetune", zeros_and_ones, "--name", "digits", *OPTIONS, "--json")
    scores = ran.answer["scores"]["scores"]
    assert scores["accuracy"] > 0.9
    assert "0 parameters are trained" in ran.err
    stored = Store().resolve("digits@1")
    told = stored.manifest.strategy["classifier"]
    assert told["images"] == 40
    assert told["rows"] == 80
    assert told["chosen"] == told["candidates"][0]["classifier"]
    assert {row["classifier"] for row in told["candidates"]} == {*classifiers.GRID, "vote", "stack"}
    page = (stored.path / "report.html").read_text("utf-8")
    assert 'id="classifiers"' in page
    assert 'id="learning"' not in page
    image = next((zeros_and_ones / "val" / "1").iterdir())
    said = surgery("predict", "digits", image, "--json").answer["results"][0]["labels"]
    assert said[0]["label"] == "1"
    again = surgery("export", "digits@1", "--json").answer
    assert again["scores"]["scores"] == scores
    assert Store().resolve("digits@2").manifest.strategy["classifier"] == told
    assert surgery("evaluate", "digits@2", zeros_and_ones, "--json").answer["scores"] == scores
    repeated = surgery("finetune", "--recipe", stored.path / "recipe.yaml", "--json").answer
    assert repeated["scores"]["scores"] == scores
    on = surgery("finetune", zeros_and_ones, "--name", "on", "--backbone", "test_resnet", "--weights", "digits@1",
                 "--stages", "stage2", "--epochs", "1", "--image-size", "32")  # fmt: skip
    assert on.code == 0, on.err


def test_a_classifier_that_answers_otherwise_is_not_stored(
    rooms: Path, zeros_and_ones: Path, surgery: Surgery, monkeypatch
) -> None:
    real = classifier_module.join_classifier

    def tamper(graph: Path, classifier: classifier_module.Classifier) -> None:
        real(graph, classifier)
        model = onnx.load(graph)
        for value in model.graph.initializer:
            if value.name == "least_probability":
                value.CopyFrom(onnx.numpy_helper.from_array(np.float32(0.4), value.name))
        graph.write_bytes(model.SerializeToString())

    monkeypatch.setattr("surgery.deliver.package.join_classifier", tamper)
    ran = surgery(
        "finetune", zeros_and_ones, "--name", "digits", *OPTIONS, "--classifiers", "logistic", "--json"
    )
    assert ran.code == ParityError.exit_code
    assert json.loads(ran.out)["error"]["code"] == ParityError.code
    assert Store().list_names() == []


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--lr", "0.1", "--mixup", "0.2"), "--mixup is for training by steps"),
        (("--processes", "2"), "one process"),
        (("--classifiers", "forrest"), "'forrest' is not one of logistic"),
        (("--views", "0"), "take 1 or more"),
    ],
)
def test_what_it_does_not_know_is_refused(
    rooms: Path, zeros_and_ones: Path, surgery: Surgery, more: tuple[str, ...], said: str
) -> None:
    ran = surgery("finetune", zeros_and_ones, "--name", "digits", *OPTIONS, *more)
    assert ran.code == 2
    assert said in ran.err
    assert not (rooms / "runs").exists()


def test_masks_and_several_labels_are_refused(
    rooms: Path, scenes: Path, surgery: Surgery, zeros_and_ones: Path
) -> None:
    ran = surgery("finetune", scenes, "--name", "cars", *TINY, "--strategy", "classical")
    assert ran.code == 2
    assert "--strategy classical is for classification" in ran.err
    files = sorted(zeros_and_ones.glob("train/*/*"))
    rows = [f"{file},{'0;1' if i % 3 == 0 else i % 2}" for i, file in enumerate(files)]
    (rooms / "several.csv").write_text("\n".join(["path,label", *rows]))
    ran = surgery("finetune", rooms / "several.csv", "--name", "several", *OPTIONS)
    assert ran.code == 2
    assert "one label an image" in ran.err


def test_other_strategies_do_not_take_its_options(
    rooms: Path, zeros_and_ones: Path, surgery: Surgery
) -> None:
    ran = surgery("finetune", zeros_and_ones, "--name", "digits", *TINY, "--folds", "3")
    assert ran.code == 2
    assert "--folds goes with --strategy classical" in ran.err
