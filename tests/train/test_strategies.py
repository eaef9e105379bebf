"""A strategy is data: which phases, which layers, which rates."""

from __future__ import annotations

import itertools
import math

import pytest

from surgery.artifact.errors import ConfigError
from surgery.config import FinetuneConfig
from surgery.train.strategies import learning_rate, plan_phases, resolve_rates

STAGES = ("stage1", "stage2", "stage3", "stage4", "stage5")


def config(**values):
    return FinetuneConfig(data="d", name="n", **values)


@pytest.mark.parametrize(
    ("strategy", "firsts"),
    [("random", [0]), ("full", [0]), ("frozen", [5]), ("partial", [4]), ("gradual", [5, 0])],
)
def test_first_trainable_stage_of_each_phase(strategy, firsts):
    phases = plan_phases(config(strategy=strategy), "classify", STAGES)
    assert [phase.first for phase in phases] == firsts


def test_partial_freezes_through_the_named_stage():
    (phase,) = plan_phases(config(strategy="partial", freeze_through="stage2"), "segment", STAGES)
    assert phase.first == 2


@pytest.mark.parametrize("name", ["stage5", "stage9"])
def test_partial_refuses_a_stage_that_leaves_nothing_or_is_none(name):
    with pytest.raises(ConfigError, match=name):
        plan_phases(config(strategy="partial", freeze_through=name), "segment", STAGES)


def test_gradual_ends_with_everything_at_a_very_low_rate():
    head, tune = plan_phases(config(strategy="gradual", epochs=20, lr=1e-2), "classify", STAGES)
    assert head.epochs + tune.epochs == 20
    assert head.patience is not None
    assert tune.lr == tune.backbone_lr <= 0.02 * head.lr


def test_the_backbone_of_random_learns_as_fast_as_the_head():
    (phase,) = plan_phases(config(strategy="random", lr=3e-4), "classify", STAGES)
    assert phase.lr == phase.backbone_lr == 3e-4


def test_rate_rises_linearly_then_falls_as_a_cosine():
    rates = [learning_rate(step, 100, 0.1) for step in range(100)]
    assert rates[:10] == pytest.approx([(i + 1) / 11 for i in range(10)])
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5 * (1 + math.cos(math.pi / 2)), abs=1e-9)
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))
    assert 0 < rates[-1] < 1e-3


@pytest.mark.parametrize("strategy", ["random", "full", "frozen", "partial", "gradual"])
def test_a_resolved_config_leaves_nothing_open_and_plans_the_same(strategy):
    wished = config(strategy=strategy, weights="random" if strategy == "random" else "imagenet")
    resolved = resolve_rates(wished, "segment", STAGES)
    assert None not in (resolved.epochs, resolved.lr, resolved.backbone_lr_share)
    assert (resolved.freeze_through is not None) == (strategy == "partial")
    assert plan_phases(resolved, "segment", STAGES) == plan_phases(wished, "segment", STAGES)
    assert resolve_rates(resolved, "segment", STAGES) == resolved
