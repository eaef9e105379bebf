"""`surgery adapt` from the command line: bad input, several methods, a kill, and what is stored."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import onnx
import pytest
from killing import run_forked
from PIL import Image
from running import TINY, Surgery
from safetensors.numpy import load_file

from surgery.artifact.store import Store

FINETUNE = (*TINY, "--strategy", "random", "--image-size", "32", "--epochs", "2", "--batch-size", "20",
            "--device", "cpu")  # fmt: skip
ADAPT = ("--epochs", "2", "--batch-size", "20", "--device", "cpu")
MASKS = (*TINY, "--strategy", "random", "--task", "segment", "--classes", "car", "--epochs", "1",
         "--batch-size", "4", "--device", "cpu")  # fmt: skip


@pytest.fixture(scope="session")
def negatives(zeros_and_ones: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same digits, other images of them, in the negative, in folders that say nothing."""
    folder = tmp_path_factory.mktemp("negatives")
    for k, path in enumerate(sorted(zeros_and_ones.rglob("*.png"))):
        pixels = 255 - np.asarray(Image.open(path).convert("RGB"))
        if "train" in path.parts:
            place = folder / "target" / ("odd" if k % 2 else "even") / f"{k}.png"
        else:
            place = folder / "labelled" / "val" / path.parent.name / f"{k}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place)
    shutil.copytree(zeros_and_ones / "train", folder / "labelled" / "train")
    return folder


@pytest.fixture
def digits(rooms: Path, zeros_and_ones: Path, surgery: Surgery) -> str:
    """A stored model of zeros and ones."""
    ran = surgery("finetune", zeros_and_ones, "--name", "digits", *FINETUNE)
    assert ran.code == 0, ran.err
    return "digits"


def test_bad_input_is_answered_and_nothing_is_stored(
    digits: str, zeros_and_ones: Path, negatives: Path, surgery: Surgery, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    one = next((negatives / "target").rglob("*.png"))
    deep = tmp_path / "deep"
    deep.mkdir()
    for k in range(3):
        Image.fromarray(np.full((9, 9), 999 * k, np.uint16)).save(deep / f"{k}.png")
    (tmp_path / "broken").mkdir()
    for k in range(3):
        (tmp_path / "broken" / f"{k}.png").write_bytes(b"no image")
    lone = tmp_path / "lone"
    shutil.copytree(zeros_and_ones / "train", lone / "train")
    shutil.copytree(zeros_and_ones / "val" / "0", lone / "val" / "0")
    for extra in sorted((lone / "val").rglob("*.png"))[1:]:
        extra.unlink()
    target = ("--target", negatives / "target")
    wrong = (
        (("--target", tmp_path / "nowhere"), "no such file or folder"),
        (("--target", tmp_path / "empty"), "no images without labels"),
        (("--target", tmp_path / "broken"), "3 of 3 images cannot be read"),
        (("--target", tmp_path / "broken", "--skip-bad"), "0 images that can be read"),
        (("--target", one), "1 image that can be read"),
        (("--target", deep), "16 bits per channel, but 8 bits"),
        (("--target", zeros_and_ones), "is one of the source"),
        (("--method", "dann"), "'target' is missing"),
        ((*target, "--method", "dan"), "--method 'dan' is not one of"),
        ((*target, "--method", "output"), "is for segment, not for classify"),
        ((*target, "--choose-by", "luck"), "--choose-by 'luck'"),
        ((*target, "--at", "stage9"), "'stage9' is no stage that learns"),
        ((*target, "--freeze-through", "stem9"), "leaves no stage that could be adapted"),
        ((*target, "--source", tmp_path / "gone"), "the source is not there"),
        ((*target, "--source", lone), "1 image in val; 2 are needed"),
        ((*target, "--ema", "0"), "an average of nothing"),
        ((*target, "--labels", tmp_path / "gone"), "gone"),
        ((*target, "--name", "no/name"), "no/name"),
    )
    for options, said in wrong:
        ran = surgery("adapt", digits, *options)
        assert ran.code == 2, (options, ran.err)
        assert said in ran.err, options
        assert "Traceback" not in ran.err
    assert surgery("adapt", "nobody", *target).code == 2
    assert Store().list_names() == ["digits"]
    assert Store().list_versions("digits") == [1]
    assert not list(Path(os.environ["SURGERY_RUNS"]).glob("*/checkpoints/../target.json"))


def test_models_without_a_gradient_or_of_several_labels_are_refused(
    rooms: Path, zeros_and_ones: Path, negatives: Path, surgery: Surgery
) -> None:
    classical = ("--strategy", "classical", "--classifiers", "logistic", "--image-size", "32")
    ran = surgery("finetune", zeros_and_ones, "--name", "digits", *TINY, *classical)
    assert ran.code == 0, ran.err
    refused = surgery("adapt", "digits", "--target", negatives / "target")
    assert refused.code == 2
    assert "which no gradient passes" in refused.err


def test_of_several_methods_the_one_that_looks_best_without_labels_is_stored(
    digits: str, negatives: Path, surgery: Surgery
) -> None:
    ran = surgery(
        "adapt", digits, "--target", negatives / "target", "--labels", negatives / "labelled",
        "--method", "dann,adabn", "coral", "--name", "negatives", *ADAPT, "--json",
    )  # fmt: skip
    answer = ran.answer
    assert (answer["model"], answer["version"], answer["production"]) == ("negatives", 1, True)
    assert answer["parent"] == "digits@1"
    told = answer["adaptation"]
    assert set(told["methods"]) == {"dann", "adabn", "coral"}
    best = max(told["methods"], key=lambda name: told["methods"][name]["criteria"][told["chosen_by"]])
    assert told["method"] == best
    assert told["target"]["images"] == 40
    assert told["labels"]["n"] == 20
    assert told["labels"]["used_to_choose"] is False
    assert 0 <= told["distance"]["after"] <= 2

    stored = Store().resolve("negatives")
    manifest = stored.manifest
    assert manifest.parity["images"] == 16  # half of them of the target
    assert manifest.strategy["name"] == best
    # What learnt beside the model is neither in the weights nor in the graph.
    kept = load_file(stored.path / "weights.safetensors")
    parent = Store().resolve("digits@1")
    assert kept.keys() == load_file(parent.path / "weights.safetensors").keys()
    graph, before = (onnx.load(each.path / "model.onnx").graph for each in (stored, parent))
    assert [node.op_type for node in graph.node] == [node.op_type for node in before.node]
    page = json.loads((stored.path / "adaptation.json").read_text("utf-8"))
    assert set(page["history"]) == {"dann", "adabn", "coral"}
    report = (stored.path / "report.html").read_text("utf-8")
    for words in ("Adaptation", "nothing was chosen by them", "proxy A-distance"):
        assert words in report

    own = (stored.path / "recipe.yaml", "--method", best)
    again = surgery("adapt", "--recipe", *own, "--augment", "auto", "--json").answer
    assert (again["model"], again["version"], again["production"]) == ("negatives", 2, False)
    repeated = load_file(Store().resolve("negatives@2").path / "weights.safetensors")
    assert all(kept[key].tobytes() == repeated[key].tobytes() for key in kept)


def test_without_a_name_it_is_the_next_version_of_the_model(
    digits: str, negatives: Path, surgery: Surgery
) -> None:
    ran = surgery("adapt", digits, "--target", negatives / "target", *ADAPT, "--method", "mmd", "--promote")
    assert ran.code == 0, ran.err
    assert Store().aliases("digits") == {"production": 2, "previous": 1}
    first = [each["first"] for each in Store().resolve("digits").manifest.strategy["phases"]]
    begun = [each["first"] for each in Store().resolve("digits@1").manifest.strategy["phases"]]
    assert first == begun  # so that what learnt may learn again, in a variant of the variant
    assert surgery("predict", "digits", next((negatives / "target").rglob("*.png"))).code == 0


LIFE = (("pair", 1), ("pair", 2), ("epoch", 1), ("pair", 2), ("export", 1), ("parity", 1), ("seal", 1))
"""Where each process is killed; after every step there is a checkpoint."""


@pytest.mark.parametrize("method", ["dann", "dann-alternating", "self-training", "adabn"])
def test_killed_again_and_again_it_ends_with_the_same_weights(
    digits: str, negatives: Path, rooms: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    command = ["adapt", digits, "--target", str(negatives / "target"), "--name", "n", "--method", method]
    command += [*ADAPT, "--freeze-through", "none"]
    lives = {"dann": len(LIFE), "adabn": 1}.get(method, 4)  # two steps are all that one that measures has
    for life, kill in enumerate(LIFE[:lives]):
        resume = ["--resume"] if life else []
        code, printed = run_forked([*command, *resume], rooms / f"{life}.log", kill)
        assert code == -signal.SIGKILL, f"{kill}: {printed}"
        assert Store().list_versions("n") == []
        assert Store().list_damaged() == {}
    code, printed = run_forked([*command, "--resume"], rooms / "last.log")
    assert code == 0, printed
    disturbed = Store().resolve("n").path / "weights.safetensors"
    parent = Store().resolve(digits).path.parent
    for key in ("MODELS", "RUNS", "CACHE"):
        monkeypatch.setenv(f"SURGERY_{key}", str(rooms / "undisturbed" / key.lower()))
    shutil.copytree(parent, rooms / "undisturbed" / "models" / "digits")
    code, printed = run_forked(command, rooms / "undisturbed.log")
    assert code == 0, printed
    assert "resuming" not in printed
    one, other = load_file(disturbed), load_file(Store().resolve("n").path / "weights.safetensors")
    assert one.keys() == other.keys()
    assert [name for name in one if one[name].tobytes() != other[name].tobytes()] == []


def test_a_killed_run_of_several_methods_repeats_none_that_has_ended(
    digits: str, negatives: Path, rooms: Path
) -> None:
    command = ["adapt", digits, "--target", str(negatives / "target"), "--name", "n", "--device", "cpu"]
    command += ["--method", "coral,mmd", "--epochs", "1"]
    code, printed = run_forked(command, rooms / "0.log", ("export", 1))
    assert code == -signal.SIGKILL, printed
    assert printed.count("epoch 1:") == 2
    code, printed = run_forked([*command, "--resume"], rooms / "1.log")
    assert code == 0, printed
    assert "epoch 1:" not in printed


def test_masks_are_adapted_and_another_target_is_not_resumed(
    rooms: Path, scenes: Path, surgery: Surgery, tmp_path: Path
) -> None:
    for place, dark in (("night", 3), ("dusk", 2)):
        for path in (scenes / "train" / "images").iterdir():
            (tmp_path / place).mkdir(exist_ok=True)
            pixels = np.asarray(Image.open(path))
            Image.fromarray(pixels // dark).save(tmp_path / place / f"{path.stem}.png")
    assert surgery("finetune", scenes, "--name", "cars", *MASKS).code == 0
    command = ("adapt", "cars", "--method", "output", "--epochs", "1", "--device", "cpu", "--name", "n")
    stopped, printed = run_forked(
        [*map(str, command), "--target", str(tmp_path / "night")], rooms / "0.log", ("pair", 1)
    )
    assert stopped == -signal.SIGKILL, printed
    refused = surgery(*command, "--target", tmp_path / "dusk", "--resume")
    assert refused.code == 2
    assert "Traceback" not in refused.err
    answer = surgery(*command, "--target", tmp_path / "night", "--resume", "--json").answer
    assert answer["adaptation"]["method"] == "output"
    assert answer["parity"]["images"] == 8
