"""Classifiers compared by cross-validation: the right one wins, and none is judged on what it knows."""

from __future__ import annotations

import numpy as np
import pytest

from surgery.artifact.errors import DataError
from surgery.train import classifiers
from surgery.train.classifiers import (
    CALIBRATION_FOLDS,
    GRID,
    LEAST_PROBABILITY,
    Examples,
    choose_classifier,
    log_probabilities,
)


@pytest.fixture(autouse=True)
def small_forests(monkeypatch):
    monkeypatch.setattr(classifiers, "TREES", 20)


def draw(labels: np.ndarray, features: np.ndarray, views: int = 1, noise: float = 0.0) -> Examples:
    """Each image in some views, of which the first is plain."""
    rng = np.random.default_rng(1)
    n = len(labels)
    values = np.concatenate(
        [features + (v > 0) * noise * rng.normal(size=features.shape) for v in range(views)]
    )
    plain = np.repeat(np.arange(views) == 0, n)
    groups = np.tile(np.arange(n), views)
    return Examples(values.astype(np.float32), np.tile(labels, views), groups, plain)


def choose(examples: Examples, *kinds: str, folds: int = 5, balanced: bool = False):
    names = ["ants", "bees", "wasps"][: int(examples.labels.max()) + 1]
    seen: list[tuple[int, int]] = []
    fitted, found = choose_classifier(
        examples, kinds, folds, 0, balanced, names, lambda done, total: seen.append((done, total))
    )
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1]
    return fitted, found


def test_a_boundary_that_no_line_draws_is_left_to_a_classifier_that_can():
    rng = np.random.default_rng(0)
    features = rng.uniform(-1, 1, (160, 2))
    labels = (features[:, 0] * features[:, 1] > 0).astype(int)
    fitted, found = choose(draw(labels, features), "logistic", "linear-svm", "rbf-svm")
    best = {each.kind: each.accuracy for each in reversed(found)}
    assert found[0].kind == "rbf-svm"
    assert best["rbf-svm"] > 0.9
    assert best["logistic"] < 0.75
    assert best["linear-svm"] < 0.75
    assert (fitted.predict(features) == labels).mean() > 0.9


def test_a_boundary_that_is_a_line_is_found_by_each():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(90, 3))
    labels = (3 * features + rng.normal(size=features.shape) * 0.3).argmax(1)
    _, found = choose(draw(labels, features, views=2, noise=0.05))
    assert {each.kind for each in found} == {*GRID, "vote", "stack"}
    best = {each.kind: each.accuracy for each in reversed(found)}
    assert all(accuracy > 0.75 for accuracy in best.values())
    assert [each.accuracy for each in found] == sorted((each.accuracy for each in found), reverse=True)


def test_views_of_an_image_stay_together():
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(80, 6)), rng.integers(0, 2, 80)
    examples = draw(labels, features, views=4, noise=0.01)
    best = {each.kind: each.accuracy for each in reversed(choose(examples, "knn", "forest")[1])}
    assert max(best.values()) < 0.7  # there is nothing to learn; who knew another view would be right
    apart = Examples(examples.features, examples.labels, np.arange(len(examples.labels)), examples.plain)
    assert choose(apart, "forest")[1][0].accuracy > 0.9


def test_only_plain_views_are_judged():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    features = np.stack([labels * 4.0, rng.normal(size=60)], 1)
    examples = draw(labels, features)
    junk = Examples(rng.normal(size=(60, 2)).astype(np.float32), 1 - labels, examples.groups, ~examples.plain)
    both = Examples(
        *(np.concatenate(pair) for pair in zip(vars(examples).values(), vars(junk).values(), strict=True))
    )
    assert choose(both, "logistic")[1][0].accuracy == 1.0


def test_the_vote_is_the_mean_of_the_best_of_each_kind():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 2))
    labels = (features[:, 0] + 0.8 * rng.normal(size=60) > 0).astype(int)
    _, found = choose(draw(labels, features), "logistic", "knn", "vote")
    best = {each.kind: each for each in reversed(found)}
    mean = (best["logistic"].held_out + best["knn"].held_out) / 2
    assert np.allclose(best["vote"].held_out, mean)
    assert best["vote"].settings == {"of": ["logistic", "knn"]}


def test_a_stack_believes_the_part_that_is_right_on_new_images():
    """A forest knows its own rows by heart; told apart by that alone, it would be believed."""
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 2
    features = np.concatenate(
        [labels[:, None] + 0.6 * rng.normal(size=(120, 1)), rng.normal(size=(120, 30))], 1
    )
    fitted, found = choose(draw(labels, features), "forest", "logistic", "stack")
    if found[0].kind != "stack":
        fitted, found = choose(draw(labels, features), "stack")
    weights = fitted.final_estimator_.coef_[0]
    assert np.abs(weights).max() < 8  # fitted on its own rows, the forest's weight grows past any such number
    assert found[0].accuracy > 0.6


def test_too_few_images_are_named():
    labels = np.array([0] * 10 + [1] * 3)
    with pytest.raises(DataError, match=r"'bees' has 3") as caught:
        choose(draw(labels, np.random.default_rng(0).normal(size=(13, 2)), views=3), "knn")
    assert "--strategy frozen" in caught.value.hint
    copies = Examples(
        np.zeros((20, 1), np.float32), np.arange(20) % 2, np.arange(20) // 10, np.ones(20, bool)
    )
    with pytest.raises(DataError, match="'ants' has 2, 'bees' has 2"):  # copies count once
        choose(copies, "knn")


def test_four_images_of_a_class_are_enough():
    labels = np.array([0] * 4 + [1] * 4)
    _, found = choose(
        draw(labels, labels[:, None] + np.random.default_rng(0).normal(size=(8, 2)) / 9), folds=9
    )
    assert {each.kind for each in found} == {*GRID, "vote", "stack"}
    assert CALIBRATION_FOLDS == 3
    assert found[0].accuracy == 1.0


def test_balanced_weights_find_the_rare_class():
    rng = np.random.default_rng(0)
    labels = (np.arange(200) % 20 == 0).astype(int)
    features = labels[:, None] * 1.5 + rng.normal(size=(200, 2))
    plain, weighed = (
        choose(draw(labels, features), "logistic", balanced=b)[1][0].held_out for b in (False, True)
    )
    rare = labels == 1
    assert weighed[rare, 1].mean() > plain[rare, 1].mean() + 0.2


def test_logits_are_probabilities_again():
    shares = np.array([[0.7, 0.3], [1.0, 0.0]])
    logits = log_probabilities(shares)
    assert np.allclose(np.exp(logits[0]), shares[0])
    assert np.isfinite(logits).all()
    assert logits[1, 1] == pytest.approx(np.log(LEAST_PROBABILITY))
