"""Intervals, sentences, counts, pictures and commands with known answers."""

from __future__ import annotations

import base64
import io
import math
import re
import shlex
from typing import Any

import numpy as np
import pytest
from PIL import Image
from unsealed import make_labels, make_masks

from surgery.artifact.answer import class_colours
from surgery.artifact.manifest import Manifest, OutputSpec
from surgery.cli import main
from surgery.config import FinetuneConfig, to_dict
from surgery.report import sections
from surgery.report.charts import Line, line_chart, powers_of_ten, rate_chart, round_steps
from surgery.report.command import command_line
from surgery.report.counts import count_classes
from surgery.report.intervals import bootstrap
from surgery.report.learning import draw_losses, draw_rates, draw_scores, judge, phase_starts
from surgery.report.pictures import data_uri, overlay_pair
from surgery.train.evaluate import LabelScorer, MaskScorer, Scores
from surgery.train.lr_range import RangeTest

LABELS = OutputSpec("softmax", ("a", "b"))
CAR = OutputSpec("sigmoid", ("rest", "car"), (0, 7), "rest")


def no_progress(done: int, total: int) -> None:
    assert 0 < done <= total


def test_an_interval_is_that_of_the_binomial():
    scorer = LabelScorer(LABELS)
    for k in range(400):
        scorer.update(np.eye(2)[k % 2], k % 2 if k < 320 else 1 - k % 2)
    found = bootstrap(scorer, 400, no_progress)
    assert scorer.compute().scores["accuracy"] == 0.8
    half = 1.96 * math.sqrt(0.8 * 0.2 / 400)
    assert found["accuracy"].low == pytest.approx(0.8 - half, abs=0.006)
    assert found["accuracy"].high == pytest.approx(0.8 + half, abs=0.006)
    assert bootstrap(scorer, 400, no_progress) == found


def test_intervals_of_masks_resample_whole_images():
    # Half of the images wholly right, half wholly wrong, of 100 pixels each: IoU is k / (k + 2 (n - k)).
    scorer = MaskScorer(CAR)
    for k in range(200):
        right = np.full((10, 10), 7 * (k % 2), np.uint8)
        scorer.update(right, np.ones((10, 10), np.uint8))
    found = bootstrap(scorer, 200, no_progress)
    k = 200 * (0.5 + np.array([-1, 1]) * 1.96 * math.sqrt(0.25 / 200))
    assert [found["iou"].low, found["iou"].high] == pytest.approx(list(k / 200), abs=0.012)
    assert found["iou"] == found["iou_per_image"]


def test_what_never_varies_has_no_width():
    scorer = LabelScorer(LABELS)
    for k in range(5):
        scorer.update(np.eye(2)[k % 2], k % 2)
    assert {(one.low, one.high) for one in bootstrap(scorer, 5, no_progress).values()} == {(1.0, 1.0)}


def rows(train: list[float | None], val: list[float]) -> list[dict[str, Any]]:
    return [
        {
            "epoch": k,
            "phase": "head" if k < 2 else "all",
            "train_loss": t,
            "val_loss": v,
            "val": {"accuracy": 0.5},
        }
        for k, (t, v) in enumerate(zip(train, val, strict=True))
    ]


@pytest.mark.parametrize(
    ("train", "val", "best", "said", "unsaid"),
    [
        ([None, 0.5, 0.1], [0.9, 0.6, 0.5], 2, "overfits", "rises"),
        ([None, 0.5, 0.45], [0.9, 0.6, 0.5], 2, "a small gap", "overfits"),
        ([None, 0.5, 0.6], [0.9, 0.6, 0.5], 2, "no worse than train", "overfits"),
        ([None, 0.003, 0.001], [0.9, 0.02, 0.01], 2, "a small gap", "overfits"),
        ([None, 0.5, 0.1], [0.9, 0.5, 0.8], 1, "After epoch 1 the loss on val rises again, to 0.8", "val: the model"),
        ([None, 0.5], [0.4, 0.6], 0, "No epoch was better on val than the start", "loss"),
        ([None], [0.4], 0, "No epoch was better", "loss"),
        ([None, math.nan], [0.9, 0.6], 1, "no number", "overfits"),
    ],
)  # fmt: skip
def test_what_the_curves_say(train, val, best, said, unsaid):
    history = rows(train, val)
    found = judge(history, best)
    assert said in found
    assert unsaid not in found
    for chart in (draw_losses(history, best), draw_scores(history, best, ["accuracy"])):
        assert chart.startswith("<svg")
        assert "nan" not in chart.lower().replace("<title", "")


def test_each_score_has_the_colour_of_its_name():
    history = rows([None, 0.5], [1, 1])
    for row in history:  # as the history comes from its file, in the order of the alphabet
        row["val"] = {"accuracy": 0.0, "macro_f1": 1.0}
    chart = draw_scores(history, 1, ["macro_f1", "accuracy"])
    assert '<polyline class="line c0" points="40.0,12.0 350.0,12.0"/>' in chart
    assert '<polyline class="line c1" points="40.0,186.0 350.0,186.0"/>' in chart


def test_phases_begin_where_they_change():
    assert phase_starts(rows([None, 0.5, 0.4, 0.3], [1, 1, 1, 1])) == {1: "all"}


@pytest.mark.parametrize(
    ("high", "steps"),
    [
        (1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (2.3, [0, 0.5, 1, 1.5, 2]),
        (60, [0, 20, 40, 60]),
        (0.004, [0, 0.001, 0.002, 0.003, 0.004]),
        (7, [0, 2, 4, 6]),
    ],
)
def test_axes_have_round_steps(high, steps):
    assert round_steps(0, high) == pytest.approx(steps)


def test_points_lie_where_their_values_are():
    chart = line_chart("Loss", [Line("<val>", [(0, 4), (10, 0)])], 10, {})
    assert 'points="40.0,12.0 350.0,186.0"' in chart
    assert "&lt;val&gt;, epoch 10: 0" in chart


def test_each_factor_of_ten_of_the_rate_is_as_wide():
    chart = rate_chart([1e-6, 1e-4, 1e-2, 1.0], [4, 3, 0, 4], 1e-4)
    assert 'points="40.0,12.0 143.3,55.5 246.7,186.0 350.0,12.0"' in chart
    assert '<line class="best" x1="143.3" y1="12" x2="143.3" y2="186"/>' in chart
    ticks = re.findall(r'text-anchor="middle">([^<]+)<', chart)
    assert ticks == ["1e-6", "1e-5", "0.0001", "0.001", "0.01", "0.1", "1", "learning rate"]
    assert "rate 0.01: 0" in chart


@pytest.mark.parametrize(
    ("low", "high", "powers"), [(1e-6, 1e-4, [1e-6, 1e-5, 1e-4]), (2e-6, 0.5, [1e-5, 1e-4, 1e-3, 1e-2, 0.1])]
)
def test_powers_of_ten_inside(low, high, powers):
    assert powers_of_ten(low, high) == pytest.approx(powers)


@pytest.mark.parametrize(("chosen", "side"), [(1e-5, "start"), (0.3, "end")])
def test_the_chosen_rate_is_named_inside_the_chart(chosen, side):
    chart = rate_chart([1e-6, 1e-5, 0.3, 1.0], [1, 1, 1, 1], chosen)
    assert re.search(rf'y="20" text-anchor="{side}">{chosen:.2g}<', chart)


def test_a_version_without_a_range_test_has_no_chart_of_it(tmp_path):
    assert draw_rates(tmp_path / "lr-range.json") is None
    RangeTest((1e-6, 1e-3, 1.0), (1.0, 0.4, 2.0), 1e-3).save(tmp_path / "lr-range.json")
    found = draw_rates(tmp_path / "lr-range.json")
    assert found is not None
    assert found["chosen"] == 1e-3
    assert found["chart"].startswith("<svg")


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"classes": ("car", "big bus"), "ignore": ("void",), "task": "segment", "image_size": (480, 360)},
        {"strategy": "partial", "freeze_through": "stage4", "lr": 2e-05, "train_bn": True, "patience": 3},
        {"backbone": "resnet18", "weights": "/a b/$(x).onnx", "stages": ("stage3", "stage5"), "views": 0},
        {"data": "/data/it's; here", "skip_bad": True, "cache_gib": 0.5, "keep_checkpoints": "all"},
        {
            "trackers": ("mlflow", "wandb"),
            "recompute": True,
            "loss": "ce+lovasz",
            "format": "coco",
            "ema": 0.99,
        },
    ],
)
def test_a_command_gives_the_config_it_is_made_of(values, monkeypatch):
    config = FinetuneConfig(**({"data": "/data", "name": "cars"} | values))
    given = []
    monkeypatch.setattr("surgery.recipes.finetune.finetune", lambda config, *rest: given.append(config))
    words = shlex.split(command_line(to_dict(config)))
    assert words[:2] == ["surgery", "finetune"]
    assert main(words[1:]) == 0
    assert given == [config]


def test_steps_of_the_users_own_need_the_recipe():
    config = FinetuneConfig("/data", "cars", augment="custom", pipeline=({"HorizontalFlip": {"p": 0.5}},))
    assert command_line(to_dict(config)) == "surgery finetune --recipe recipe.yaml"


def test_classes_are_counted_by_split(tmp_path):
    labels = make_labels(tmp_path / "a", [(9, 0, 0)] * 4, [(0, 2), (), (2,), (2,)])
    found = count_classes(labels.table, labels.targets, no_progress)
    assert found.images == {"train": 4, "val": 4}
    assert found.with_class["val"] == [1, 0, 3]
    assert found.pixels == {}
    truth = np.array([[0, 0, 1, 255]], np.uint8)
    masks = make_masks(tmp_path / "b", [np.zeros((1, 4, 3), np.uint8)] * 2, [truth, truth * 0])
    found = count_classes(masks.table, masks.targets, no_progress)
    assert found.with_class["train"] == [2, 1, 0]
    assert found.pixels["train"] == [6, 1, 0]


def test_many_classes_are_told_by_the_pairs_that_are_confused():
    names = tuple(f"class {k}" for k in range(40))
    matrix = np.eye(40, dtype=int) * 8
    matrix[3, 5], matrix[7, 1] = 2, 24
    manifest = Manifest("m", "classify", "", "", None, OutputSpec("softmax", names))  # type: ignore[arg-type]
    found = sections.confusion_table(manifest, Scores(0, {}, {}, matrix.tolist(), names))
    assert found is not None
    assert found["rows"] == []
    assert found["pairs"] == [("class 7", "class 1", 24, 0.75), ("class 3", "class 5", 2, 0.2)]
    few = sections.confusion_table(manifest, Scores(0, {}, {}, [[3, 1], [0, 0]], ("a", "b")))
    assert few is not None
    assert few["rows"] == [("a", 4, [(3, 0.75), (1, 0.25)]), ("b", 0, [(0, 0.0), (0, 0.0)])]


def test_a_picture_comes_back_as_it_was_and_no_larger_than_wanted():
    def opened(uri: str) -> np.ndarray:
        head, _, body = uri.partition(",")
        assert head == "data:image/webp;base64"
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(body))).convert("RGB"))

    small = np.random.default_rng(0).integers(0, 255, (8, 9, 3)).astype(np.uint8)
    assert np.array_equal(opened(data_uri(small, 100)), small)
    assert opened(data_uri(np.zeros((300, 600, 3), np.uint8), 100)).shape == (50, 100, 3)


def test_truth_and_answer_lie_side_by_side():
    image = np.zeros((40, 60, 3), np.uint8)
    truth, answer = np.zeros((40, 60), np.uint8), np.zeros((40, 60), np.uint8)
    truth[:, :20], truth[:, 40:], answer[:, 20:40] = 1, 255, 7
    colour = np.array(class_colours(CAR)["car"])
    one, other = overlay_pair(image, truth, answer, CAR, 30)
    assert one.shape == other.shape == (20, 30, 3)
    assert np.abs(one[10, 5] - colour / 2).max() <= 1
    assert np.abs(other[10, 15] - colour / 2).max() <= 1
    assert one[10, 15].tolist() == other[10, 5].tolist() == [0, 0, 0]
    assert one[10, 25].tolist() == other[10, 25].tolist() == [96, 96, 96]
