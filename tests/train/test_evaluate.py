"""Scores with known answers."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, jaccard_score

from surgery.artifact.manifest import OutputSpec
from surgery.train.evaluate import (
    LabelScorer,
    MaskScorer,
    MultiLabelScorer,
    average_precision,
    make_scorer,
)

CAR = OutputSpec("sigmoid", ("rest", "car"), (0, 1), "rest")
STREET = OutputSpec("softmax", ("sky", "road", "car"), (0, 3, 8))


def test_labels_agree_with_scikit_learn():
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 4, 60), rng.integers(0, 4, 60)
    scorer = LabelScorer(OutputSpec("softmax", ("a", "b", "c", "d", "never")))
    for t, p in zip(truth, predicted, strict=True):
        scorer.update(np.eye(5)[p], int(t))
    found = scorer.compute()
    assert found.scores["accuracy"] == pytest.approx((truth == predicted).mean())
    assert found.scores["macro_f1"] == pytest.approx(f1_score(truth, predicted, average="macro"))
    assert found.n == 60
    assert np.array(found.confusion).sum() == 60
    assert found.confusion[0][1] == int(((truth == 0) & (predicted == 1)).sum())


def test_several_labels_agree_with_scikit_learn():
    rng = np.random.default_rng(3)
    truth, logits = rng.random((50, 4)) < 0.3, rng.normal(size=(50, 4))
    truth[:, 3] = False
    scorer = MultiLabelScorer(OutputSpec("sigmoid", ("a", "b", "c", "never")))
    for wanted, row in zip(truth, logits, strict=True):
        scorer.update(row, tuple(np.flatnonzero(wanted)))
    found = scorer.compute()
    assert found.n == 50
    assert found.main == found.scores["map"]
    assert found.scores["map"] == pytest.approx(average_precision_score(truth[:, :3], logits[:, :3]))
    assert found.scores["macro_f1"] == pytest.approx(
        f1_score(truth, logits > 0, average="macro", zero_division=0)
    )
    assert found.scores["micro_f1"] == pytest.approx(f1_score(truth, logits > 0, average="micro"))
    assert found.scores["accuracy"] == pytest.approx((truth == (logits > 0)).all(1).mean())
    assert found.per_class["b"]["n"] == truth[:, 1].sum()


def test_one_class_masks_ignore_what_is_void():
    scorer = MaskScorer(CAR)
    scorer.update(np.array([[1, 1], [0, 1]], np.uint8), np.array([[1, 0], [1, 255]], np.uint8))
    scores = scorer.compute()
    assert scores.scores["iou"] == pytest.approx(1 / 3)
    assert scores.scores["dice"] == pytest.approx(2 / 4)
    assert list(scores.per_class) == ["car"]


def test_over_the_data_set_is_not_the_mean_over_images():
    scorer = MaskScorer(CAR)
    full = np.ones((10, 10), np.uint8)
    scorer.update(full, full)
    miss = np.zeros((10, 10), np.uint8)
    miss[0, 0] = 1
    scorer.update(miss * 0, miss)
    scorer.update(miss * 0, miss * 0)
    scores = scorer.compute().scores
    assert scores["iou"] == pytest.approx(100 / 101)
    assert scores["iou_per_image"] == pytest.approx((1 + 0 + 1) / 3)
    assert scores["dice_per_image"] == pytest.approx((1 + 0 + 1) / 3)
    assert scorer.compute().per_class["car"]["iou_per_image"] == scores["iou_per_image"]


def test_masks_of_several_classes_agree_with_scikit_learn():
    rng = np.random.default_rng(2)
    values = np.array(STREET.mask_values)
    truth = rng.integers(0, 3, (20, 30)).astype(np.uint8)
    index = rng.integers(0, 3, (20, 30))
    scorer = MaskScorer(STREET)
    scorer.update(values[index].astype(np.uint8), truth)
    want = jaccard_score(truth.ravel(), index.ravel(), average=None)
    found = scorer.compute()
    assert [found.per_class[name]["iou"] for name in STREET.classes] == pytest.approx(list(want))
    assert found.scores["iou"] == pytest.approx(want.mean())


def test_a_class_that_never_occurs_does_not_lower_the_mean():
    scorer = MaskScorer(STREET)
    plane = np.zeros((4, 4), np.uint8)
    scorer.update(plane, plane)
    assert scorer.compute().scores["iou"] == 1.0


def test_an_image_that_stands_twice_counts_twice():
    rng = np.random.default_rng(4)
    classes = ("a", "b", "c")
    one, several = OutputSpec("softmax", classes), OutputSpec("sigmoid", classes)
    logits = rng.normal(size=(9, 3)).round(1)
    masks, truths = rng.integers(0, 2, (2, 9, 4, 5)).astype(np.uint8)
    truths[0, 0] = 255
    weights = np.array([[1, 1, 1, 1, 1, 1, 1, 1, 1], [0, 2, 0, 1, 3, 0, 0, 1, 2]])
    for make, inputs in (
        (lambda: LabelScorer(one), list(zip(logits, [0, 1, 2] * 3, strict=True))),
        (lambda: MultiLabelScorer(several), list(zip(logits, [(0,), (1, 2), ()] * 3, strict=True))),
        (lambda: MaskScorer(CAR), list(zip(masks, truths, strict=True))),
    ):
        scorer = make()
        for pair in inputs:
            scorer.update(*pair)
        found = scorer.weighted(weights)
        for k, row in enumerate(weights):
            again = make()
            for pair, times in zip(inputs, row, strict=True):
                for _ in range(times):
                    again.update(*pair)
            scores = again.compute().scores
            assert {name: values[k] for name, values in found.items()} == pytest.approx(scores)


def test_average_precision_of_ties_and_repeats_is_scikit_learns():
    rng = np.random.default_rng(5)
    truth, logits = rng.random((40, 3)) < 0.3, rng.integers(0, 4, (40, 3)).astype(float)
    truth[:, 2] = False
    weights = rng.integers(0, 3, (2, 40))
    found = average_precision(truth, logits, weights)
    for k, row in enumerate(weights):
        for i in range(2):
            want = average_precision_score(np.repeat(truth[:, i], row), np.repeat(logits[:, i], row))
            assert found[k, i] == pytest.approx(want)
        assert found[k, 2] == 0


@pytest.mark.parametrize("output", [CAR, OutputSpec("softmax", ("a", "b")), OutputSpec("sigmoid", ("a",))])
def test_of_no_image_every_score_is_zero(output):
    scores = make_scorer(output).compute()
    assert scores.n == 0
    assert set(scores.scores.values()) == {0.0}
