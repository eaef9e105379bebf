"""A temperature that is known beforehand is found, and the calibration error is that of the definition."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from surgery.artifact.answer import answer_labels, sigmoid, softmax
from surgery.artifact.manifest import OutputSpec
from surgery.data.table import Item
from surgery.deliver.calibrate import (
    BINS,
    Labelled,
    calibrate,
    calibration_error,
    fit_temperature,
    gather,
    mean_nll,
    measure,
)
from surgery.deliver.scoring import ImageResult

ONE = OutputSpec("softmax", ("a", "b", "c"))
SEVERAL = OutputSpec("sigmoid", ("a", "b", "c"))


def drawn(output: OutputSpec, n: int = 20_000, seed: int = 0) -> Labelled:
    """Logits, and truths drawn by the very probabilities that the logits stand for."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(n, 3))
    if output.multilabel:
        return Labelled(logits, rng.random((n, 3)) < sigmoid(logits))
    picked = (softmax(logits).cumsum(1) < rng.random((n, 1))).sum(1)
    return Labelled(logits, np.eye(3, dtype=bool)[picked])


@pytest.mark.parametrize("output", [ONE, SEVERAL], ids=["one label", "several"])
@pytest.mark.parametrize("scale", [3.0, 0.5])
def test_logits_that_are_too_large_are_divided_by_as_much(output: OutputSpec, scale: float) -> None:
    found = drawn(output)
    temperature, note = fit_temperature(replace(found, logits=scale * found.logits), output)
    assert temperature == pytest.approx(scale, rel=0.05)
    assert note == ""


@pytest.mark.parametrize("output", [ONE, SEVERAL], ids=["one label", "several"])
def test_the_error_falls_and_no_answer_changes(output: OutputSpec) -> None:
    found = drawn(output)
    found = replace(found, logits=3 * found.logits)
    cooled, facts = calibrate(found, output)
    assert facts["fitted"]
    assert facts["temperature"] == cooled.temperature
    assert facts["ece_before"] > 0.1
    assert facts["ece_after"] < 0.02
    assert facts["nll_after"] < facts["nll_before"]
    for logits in found.logits[:500]:
        before, after = answer_labels(logits, output), answer_labels(logits, cooled)
        assert [row["label"] for row in before] == [row["label"] for row in after]
        assert [row.get("present") for row in before] == [row.get("present") for row in after]
        assert [row["probability"] for row in before] != [row["probability"] for row in after]


def test_calibration_error_of_a_hand_made_example() -> None:
    # Two answers at 0.9, one of them right; one right and one wrong at 0.6; one right at 1/3 (a tie of three).
    logits = np.log([[0.9, 0.05, 0.05], [0.05, 0.9, 0.05], [0.6, 0.2, 0.2], [0.2, 0.6, 0.2], [1, 1, 1]])
    truth = np.eye(3, dtype=bool)[[0, 0, 0, 0, 0]]
    error, bins = calibration_error(Labelled(logits, truth), ONE)
    assert error == pytest.approx((2 * abs(0.5 - 0.9) + 2 * abs(0.5 - 0.6) + abs(1 - 1 / 3)) / 5)
    assert len(bins) == BINS
    filled = {k: part for k, part in enumerate(bins) if part["n"]}
    # 0.9 lies in (13/15, 14/15], 0.6 closes (8/15, 9/15], 1/3 closes (4/15, 5/15].
    assert {k: part["n"] for k, part in filled.items()} == {4: 1, 8: 2, 13: 2}
    assert filled[13]["probability"] == pytest.approx(0.9)
    assert (filled[13]["share"], filled[4]["share"]) == (0.5, 1.0)
    assert bins[0] == {"n": 0, "probability": None, "share": None}


def test_of_several_labels_every_one_is_an_answer() -> None:
    logits = np.log([[1 / 9, 9, 1], [1 / 9, 9, 1]])  # probabilities 0.1, 0.9, 0.5
    truth = np.array([[0, 1, 1], [1, 1, 0]], bool)
    error, bins = calibration_error(Labelled(logits, truth), SEVERAL)
    assert error == pytest.approx((2 * abs(0.5 - 0.1) + 2 * abs(1 - 0.9) + 2 * abs(0.5 - 0.5)) / 6)
    assert sum(part["n"] for part in bins) == 6


def test_the_loss_is_the_negative_log_of_the_truths_probability() -> None:
    logits = np.log([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]])
    truth = np.eye(3, dtype=bool)[[0, 1]]
    assert mean_nll(Labelled(logits, truth), ONE) == pytest.approx(-np.log([0.5, 0.1]).mean())
    several = np.array([[1, 0, 1], [0, 0, 0]], bool)
    shares = sigmoid(logits / 2)
    expected = -np.log(np.where(several, shares, 1 - shares)).mean()
    assert mean_nll(Labelled(logits, several), replace(SEVERAL, temperature=2.0)) == pytest.approx(expected)


def test_where_the_images_decide_nothing_the_temperature_stays() -> None:
    found = drawn(ONE)
    few = Labelled(found.logits[:9], found.truth[:9])
    right = Labelled(found.logits, np.eye(3, dtype=bool)[found.logits.argmax(1)])
    wrong = Labelled(found.logits, np.eye(3, dtype=bool)[found.logits.argmin(1)])
    flat = Labelled(np.zeros((60, 3)), np.eye(3, dtype=bool)[np.arange(60) % 3])
    for judged, reason in ((few, "too few"), (right, "right"), (wrong, "least"), (flat, "least")):
        for held in (1.0, 1.7):
            output, facts = calibrate(judged, replace(ONE, temperature=held))
            assert (output.temperature, facts["temperature"]) == (held, held)
            assert not facts["fitted"]
            assert reason in facts["note"]
            assert facts["ece_before"] == measure(judged, ONE)["ece_after"]


def test_truths_are_those_of_the_items() -> None:
    one = Item(Path("x"), 2, None, "val")
    several = Item(Path("y"), None, None, "val", (0, 2))
    none = Item(Path("z"), None, None, "val", ())
    results = [ImageResult(item, np.arange(3.0), None, np.zeros(1)) for item in (several, none)]
    assert gather(results, SEVERAL).truth.tolist() == [[True, False, True], [False, False, False]]
    assert gather([ImageResult(one, np.arange(3.0), None, np.zeros(1))], ONE).truth.tolist() == [
        [False, False, True]
    ]
