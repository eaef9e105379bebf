"""The tests of drift keep their false-alarm rate, and find what has moved."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import binom

from surgery.artifact.errors import ConfigError
from surgery.artifact.novelty import Gauge
from surgery.deliver import drift as module
from surgery.deliver.drift import _discrepancies, _kernel, check_rate, discrepancy_p, find_drift
from surgery.deliver.statistics import fit_gaussian, hold_out

CENTRE = np.array([6, 0, 0, 0, 0], np.float32)


def draw(rng, n):
    return CENTRE + rng.standard_t(5, (n, 5)).astype(np.float32)


def fresh(rng, held=60, train=80) -> Gauge:
    gaussian = fit_gaussian(draw(rng, train))
    return Gauge(gaussian, hold_out(gaussian, draw(rng, held)))


def test_false_alarms_are_as_rare_as_is_stated(monkeypatch):
    monkeypatch.setattr(module, "LEAST_PERMUTATIONS", 199)
    rng, repeats, rate = np.random.default_rng(0), 300, 0.1
    found = [find_drift(fresh(rng), draw(rng, 25), rate, seed) for seed in range(repeats)]
    for alarms, stated in (
        (sum(each.found for each in found), rate),
        (sum(each.distance_p <= rate / 2 for each in found), rate / 2),
        (sum(each.embedding_p <= rate / 2 for each in found), rate / 2),
    ):
        assert alarms <= binom.ppf(0.999, repeats, stated)
        assert alarms >= binom.ppf(0.001, repeats, stated * 0.7)  # and not by never finding anything
    assert np.mean([each.beyond for each in found]) == pytest.approx(0.05, abs=0.03)


@pytest.mark.parametrize(
    ("move", "by"),
    [
        (lambda rows: rows + np.array([0, 6, 0, 0, 0], np.float32), "distance_p"),
        (lambda rows: rows * 3, "embedding_p"),  # in the same directions, but longer
        (lambda rows: CENTRE + (rows - CENTRE) * 0.2, "embedding_p"),  # nearer, and yet others
    ],
)
def test_what_has_moved_is_found(move, by):
    rng = np.random.default_rng(1)
    found = find_drift(fresh(rng), move(draw(rng, 30)), 0.05)
    assert found.found
    assert getattr(found, by) <= 0.002


NIGHT = np.array([2, 7, 0, 0, 0], np.float32) - CENTRE
"""How far away the domain lies that a model was adapted to."""


def adapted(rng) -> Gauge:
    gaussian = fit_gaussian(np.concatenate([draw(rng, 60), draw(rng, 60) + NIGHT]))
    held = np.concatenate([draw(rng, 50), draw(rng, 50) + NIGHT])
    return Gauge(gaussian, hold_out(gaussian, held, 50))


@pytest.mark.parametrize("kind", ["source", "target", "training images"])
def test_an_adapted_version_is_at_home_in_either_domain_and_in_both(kind, monkeypatch):
    monkeypatch.setattr(module, "LEAST_PERMUTATIONS", 199)
    rng, repeats, rate = np.random.default_rng(6), 60, 0.1
    nights = {"source": np.zeros(30), "target": np.ones(30), "training images": np.arange(30) % 2}[kind]
    found = [
        find_drift(adapted(rng), draw(rng, 30) + nights[:, None].astype(np.float32) * NIGHT, rate, seed)
        for seed in range(repeats)
    ]
    assert sum(each.found for each in found) <= binom.ppf(0.999, repeats, rate)
    assert sum(each.like == kind for each in found) > 0.8 * repeats


def test_an_adapted_version_is_not_at_home_in_a_third_domain():
    rng = np.random.default_rng(7)
    elsewhere = draw(rng, 30) + np.array([-4, 0, 9, 0, 0], np.float32)
    assert find_drift(adapted(rng), elsewhere, 0.05).found


def test_a_domain_of_a_few_images_says_nothing_by_itself():
    rng = np.random.default_rng(8)
    gaussian = fit_gaussian(draw(rng, 80))
    held = hold_out(gaussian, draw(rng, 40), 9)
    assert set(held.kinds()) == {"training images", "source"}
    assert set(hold_out(gaussian, draw(rng, 40)).kinds()) == {"training images"}


def test_the_same_images_give_the_same_answer():
    gauge, rows = fresh(np.random.default_rng(2)), draw(np.random.default_rng(3), 30)
    assert find_drift(gauge, rows, 0.05) == find_drift(gauge, rows, 0.05)


def test_far_images_are_counted_with_an_interval():
    rng = np.random.default_rng(4)
    gauge = fresh(rng)
    found = find_drift(gauge, np.stack([CENTRE] * 15 + [-CENTRE] * 5), 0.05)
    assert (found.images, found.beyond) == (20, 0.25)
    assert found.interval == pytest.approx((0.1119, 0.4687), abs=1e-3)  # Wilson's


@pytest.mark.parametrize("number", [1e30, np.inf, np.nan])
def test_embeddings_without_bounds_are_drift_and_no_error(number):
    gauge = fresh(np.random.default_rng(5))
    assert find_drift(gauge, np.full((20, 5), number, np.float32), 0.05).found


def test_reference_images_without_bounds_are_no_drift_by_themselves():
    rng = np.random.default_rng(8)
    one, other = draw(rng, 30), draw(rng, 30)
    one[0], other[0] = np.inf, np.inf
    assert discrepancy_p(one, other, 0.05) > 0.05


def test_the_discrepancy_is_that_of_its_definition():
    rng = np.random.default_rng(6)
    x, y = rng.normal(size=(4, 3)), rng.normal(size=(3, 3)) + 1
    pooled = np.concatenate([x, y])
    squares = [((a - b) ** 2).sum() for a, b in itertools.combinations(pooled, 2)]
    median = np.median(squares)

    def k(a, b):
        return sum(np.exp(-((a - b) ** 2).sum() / (2 * width**2 * median)) for width in module.WIDTHS)

    wanted = np.mean([k(a, b) for a, b in itertools.permutations(x, 2)])
    wanted += np.mean([k(a, b) for a, b in itertools.permutations(y, 2)])
    wanted -= 2 * np.mean([k(a, b) for a in x for b in y])
    sides = np.arange(7) < 4
    assert _discrepancies(_kernel(pooled), sides[None]) == pytest.approx([wanted])


def test_sets_that_are_all_the_same_are_no_drift():
    same = np.ones((12, 3), np.float32)
    assert discrepancy_p(same, same, 0.05) == 1


def test_permutations_suffice_for_the_rate():
    rng = np.random.default_rng(7)
    assert discrepancy_p(draw(rng, 20), draw(rng, 20) + 9, 0.001) == 1 / 20000


@pytest.mark.parametrize("rate", [0, 1e-9, 0.6, -1, float("nan")])
def test_a_rate_that_cannot_be_kept_is_refused(rate):
    with pytest.raises(ConfigError, match="false-alarm-rate"):
        check_rate(rate)
