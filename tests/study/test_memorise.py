"""What is learnt by heart: conditions, gaps and sentences from known answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from surgery.study.fitting import Recipe
from surgery.study.memorise import (
    CONDITIONS,
    REGULARISED,
    Condition,
    chance_error,
    complexity,
    conclude,
    fit_built,
    list_trainings,
    prepare,
    report,
    run_memorise,
    summarise,
)
from surgery.study.pictures import save_pictures


def made_up(true=3, noise=9, test=0.8, seeds=3):
    """Answers in which a condition is learnt after known epochs; None: not at all."""
    trainings = list_trainings("", "n", CONDITIONS, Recipe(10), seeds)
    answers = {}
    for each in trainings:
        fits = true if each.condition.name == "true labels" else noise
        curve = [0.1, *np.linspace(0.1, 1.0, fits).tolist()] if fits else [0.1] * 11
        answers[each] = {
            "epochs_to_fit": fits,
            "train_accuracy": curve[-1],
            "test_accuracy": test if each.condition.name == "true labels" else 0.1,
            "train_curve": curve,
            "test_curve": curve,
        }
    return answers


def test_epochs_errors_and_gap():
    learnt = summarise(made_up())
    assert learnt["true labels"].epochs.mean == 3
    assert learnt["random labels"].epochs.mean == 9
    assert learnt["true labels"].gap.mean == pytest.approx(0.2)
    assert learnt["random labels"].gap.mean == pytest.approx(0.9)
    assert complexity(learnt).mean == pytest.approx(1.0)  # every ±1 was learnt
    found, advice = conclude(learnt, 0.9)
    assert "3.0 times as many" in found
    assert "carry a signal" in advice


def test_labels_that_are_noise_are_told():
    learnt = summarise(made_up(true=9, test=0.1))
    assert "No signal" in conclude(learnt, 0.9)[1]


def test_a_frequent_class_alone_is_no_signal():
    """Nine in ten of one class: fast to learn, and seldom wrong, with labels that are no more than drawn."""
    learnt = summarise(made_up(true=3, noise=3, test=0.9))
    assert "carry a signal" not in conclude(learnt, 0.1)[1]
    pure = replace(learnt["random labels"], early=[0.1, 0.1, 0.1])  # evenly drawn ones are slower
    assert "No signal" in conclude(learnt | {"random labels": pure}, 0.1)[1]
    assert chance_error(np.array([0, 2, 2, 2])) == 0.25


def test_what_is_learnt_faster_and_not_answered_better_is_no_proof():
    found = conclude(summarise(made_up(test=0.1)), 0.9)[1]
    assert "learnt faster than permuted ones, but new images are not seen" in found


def test_what_is_not_learnt_has_no_epochs_and_no_complexity():
    learnt = summarise(made_up(noise=None))
    assert learnt["random labels"].epochs is None
    assert complexity(learnt).mean == pytest.approx(-0.8)
    assert "in 0 of 3 seeds" in conclude(learnt, 0.9)[0]


def test_seeds_that_fit_are_counted_where_not_all_do():
    answers = made_up(noise=None)
    slow = made_up(true=None, noise=None)
    for each in answers:
        if each.seed == 2:
            answers[each] = slow[each]
    found, _ = conclude(summarise(answers), 0.9)
    assert "the true labels in 2 of 3 seeds and permuted ones in 0" in found
    assert "neither" not in found
    assert "neither the true labels nor permuted ones" in conclude(summarise(slow), 0.9)[0]
    odd = made_up(true=None)
    assert "the true labels in 0 of 3 seeds and permuted ones in 3" in conclude(summarise(odd), 0.9)[0]


def test_each_condition_changes_what_it_says_and_no_judged_label(pictures):
    by_name = {each.name: each for each in (*CONDITIONS, *REGULARISED)}
    random = prepare(pictures, by_name["random labels"], 0)
    assert 0.5 < (random.train.labels != pictures.train.labels).mean() <= 1
    assert np.array_equal(random.judged.labels, pictures.judged.labels)
    permuted = prepare(pictures, by_name["permuted labels"], 0)
    assert np.array_equal(np.bincount(permuted.train.labels), np.bincount(pictures.train.labels))
    assert 0.5 < (permuted.train.labels != pictures.train.labels).mean() < 1
    assert np.array_equal(permuted.judged.labels, pictures.judged.labels)
    assert np.array_equal(random.train.images, pictures.train.images)
    assert prepare(pictures, by_name["true labels"], 0).digest() == pictures.digest()
    assert prepare(pictures, by_name["random ±1"], 0).classes == ("-1", "+1")
    trainings = list_trainings("", "n", (*CONDITIONS, *REGULARISED), Recipe(5, weight_decay=0.3), 1)
    given = {each.condition.name: each.recipe for each in trainings}
    assert given["true labels"].weight_decay == 0
    assert given["true labels, augmented"].augment == "light"
    assert given["random labels, dropout"].dropout == 0.5


def test_true_labels_are_learnt_and_random_ones_do_not_generalise(pictures, tmp_path):
    digest = save_pictures(pictures, tmp_path)
    conditions = (CONDITIONS[0], CONDITIONS[3], CONDITIONS[4], Condition("random ±1", signs=True))
    trainings = list_trainings(digest, "yosinski_small", conditions, Recipe(12, 8), 1)
    answers = {each: run_memorise(each, tmp_path / str(k)) for k, each in enumerate(trainings)}
    learnt = summarise(answers)
    assert learnt["true labels"].epochs.mean < 12
    assert learnt["true labels"].test_error.mean < 0.2
    assert learnt["random labels"].test_error.mean > 0.4
    result = report(learnt, answers, pictures, "colours")
    assert result.values["built"]["error"] == 0.0
    assert len(result.rows) == 4
    assert result.values["chance_error"] == 0.75


def test_the_built_network_fits_random_labels_of_images(pictures):
    assert fit_built(pictures, 0) == {"points": 48, "weights": 2 * 48 + 32 * 32 * 3, "error": 0.0}
