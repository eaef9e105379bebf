"""Criteria without labels: known answers, and what each must prefer."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from surgery.adapt.criteria import (
    CRITERIA,
    density,
    density_ratio,
    embedded_validation,
    information,
    proxy_distance,
    source_score,
    sureness,
)
from surgery.adapt.maps import draw_plane
from surgery.adapt.observe import Observed
from surgery.config import CRITERIA as NAMES
from surgery.train.evaluate import Scores


def make(shares: np.ndarray, truths: tuple[float, ...] = (), **changes: object) -> Observed:
    """What was observed where a model gave these probabilities."""
    shares = np.asarray(shares, np.float32)
    logs = np.where(shares > 0, np.log(np.clip(shares, 1e-12, None)), 0)
    found = Observed(
        embeddings=np.zeros((len(shares), 2), np.float32),
        shares=shares,
        unsure=float(-(shares * logs).sum(1).mean()),
        frequencies=shares.mean(0),
        losses=np.zeros(0, np.float32),
        truths=np.array(truths, np.float32),
        scores=None,
        loss=0.0,
    )
    return replace(found, **changes)


EVEN = (0.5, 0.5)
SURE = make([[1, 0], [0, 1]])
CONSTANT = make([[1, 0], [1, 0]])
LOST = make([[0.5, 0.5], [0.5, 0.5]])
SOURCE = make([[1, 0], [0, 1]], EVEN)


def test_the_words_of_the_config_are_the_criteria():
    assert tuple(CRITERIA) == NAMES


def test_entropy_is_none_for_sure_answers_and_whole_for_no_idea():
    assert sureness(SOURCE, SURE) == pytest.approx(0)
    assert sureness(SOURCE, LOST) == pytest.approx(-1)
    assert sureness(SOURCE, CONSTANT) == sureness(SOURCE, SURE)  # what entropy alone cannot see


def test_information_is_that_of_image_and_answer_but_for_the_classes_entropy():
    assert information(SOURCE, SURE) == pytest.approx(0, abs=1e-5)
    assert information(SOURCE, CONSTANT) == pytest.approx(-math.log(2), abs=1e-5)
    assert information(SOURCE, LOST) == pytest.approx(-math.log(2), abs=1e-5)


def test_information_asks_for_the_frequencies_of_the_source():
    rare = make([[1, 0]], (0.9, 0.1))
    alike = make([[1, 0]] * 9 + [[0, 1]])
    assert information(rare, alike) == pytest.approx(0, abs=1e-5)
    assert information(rare, SURE) < -0.4


def test_density_prefers_neighbours_that_agree():
    """Eq. 3 by hand: the neighbourhood of a row among m rows alike is even, and its entropy log(m − 1)."""
    crowd = make([[1, 0, 0]] * 4)
    assert density(SOURCE, crowd) == pytest.approx(math.log(3), abs=1e-5)
    spread = make(np.random.default_rng(0).dirichlet([1, 1, 1], 40))
    tight = make(np.repeat(np.eye(3), 14, axis=0)[:40])
    assert density(SOURCE, tight) > density(SOURCE, spread)
    assert density(SOURCE, make([[1, 0]])) == 0.0


def test_embedded_validation_weighs_what_looks_like_the_target():
    """Half of the source looks like the target; what counts is the loss there."""
    rng = np.random.default_rng(1)
    near, far = rng.normal(0, 1, (200, 2)), rng.normal(3, 1, (200, 2))
    embeddings = np.concatenate([near, far]).astype(np.float32)
    target = make(np.full((200, 2), 0.5), embeddings=rng.normal(3, 1, (200, 2)).astype(np.float32))
    scored = [
        embedded_validation(
            make(np.full((400, 2), 0.5), EVEN, embeddings=embeddings,
                 losses=np.repeat(losses, 200).astype(np.float32)), target,
        )
        for losses in ([0.0, 1.0], [1.0, 0.0])
    ]  # fmt: skip
    assert scored[0] < scored[1] - 0.2  # wrong where the target is, and where it is not


def test_a_density_ratio_is_one_where_nothing_differs():
    rng = np.random.default_rng(2)
    ratio = density_ratio(rng.normal(size=(500, 3)), rng.normal(size=(250, 3)))
    assert np.median(ratio) == pytest.approx(1, abs=0.3)


def test_the_source_score_is_its_main_score():
    scores = Scores(4, {"accuracy": 0.75, "macro_f1": 0.7}, {}, [], ())
    assert source_score(replace(SOURCE, scores=scores), LOST) == 0.75


def test_domains_that_cannot_be_told_apart_are_near_and_others_far():
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(300, 4))
    assert proxy_distance(rows[:150], rows[150:]) < 0.4
    assert proxy_distance(rows[:150], rows[150:] + 9) == 2.0


def test_a_plane_holds_both_domains_and_is_drawn_alike_again():
    rng = np.random.default_rng(4)
    source, target = rng.normal(size=(40, 6)), rng.normal(5, 1, size=(30, 6))
    plane = draw_plane(source, target, 0)
    assert plane == draw_plane(source, target, 0)
    for kind in ("pca", "tsne"):
        points = plane[kind]
        assert len(points["source"]) == 40
        assert len(points["target"]) == 30
        assert np.isfinite(points["source"]).all()
    apart = np.mean(plane["pca"]["source"], 0) - np.mean(plane["pca"]["target"], 0)
    assert np.linalg.norm(apart) > 5
