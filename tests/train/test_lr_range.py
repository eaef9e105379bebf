"""The learning-rate range test."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_engine import make_loop, same, state

from surgery.artifact.errors import TrainingError
from surgery.train import lr_range
from surgery.train.lr_range import _choose, measure_rates


def test_the_steepest_place_before_the_lowest_is_chosen():
    rates = np.geomspace(1e-6, 1, 61)
    curve = 1 / (1 + (rates / 1e-3) ** 2) + 1e-2 * rates / 1e-3
    found = _choose(rates, list(curve))
    assert found.chosen == pytest.approx(1e-3, rel=0.3)
    assert max(found.rates) <= 1
    with pytest.raises(TrainingError, match="--lr auto"):
        _choose(rates, [1.0, 2.0])


def test_the_noise_of_the_first_steps_is_no_slope():
    rates = np.geomspace(1e-6, 1, 61)
    curve = 1 / (1 + (rates / 1e-3) ** 2)
    curve[0] += 1  # one hard batch before the mean has settled
    assert _choose(rates, list(curve)).chosen == pytest.approx(1e-3, rel=0.3)


def test_rates_are_tested_on_batches_of_one_image_too(boxes, tmp_path, monkeypatch):
    monkeypatch.setattr(lr_range, "STEPS", 8)
    loop = make_loop(boxes, tmp_path / "run", 6, batch_size=1, head="deeplabv3plus", backbone="test_resnet")
    assert len(measure_rates(loop).losses) >= 4


def test_several_processes_stop_at_the_same_loss(stripes, tmp_path, monkeypatch):
    losses = iter([1.0, 0.9, 0.8, 0.7, 0.6, float("nan")])
    monkeypatch.setattr(lr_range.Team, "mean", lambda self, value, flag: (next(losses), flag))
    found = measure_rates(make_loop(stripes, tmp_path / "run", 6))
    assert len(found.losses) == 5
    assert found.losses[0] == pytest.approx(1.0)


def test_the_model_is_left_as_it_was_and_a_useful_rate_is_found(stripes, tmp_path, monkeypatch):
    monkeypatch.setattr(lr_range, "STEPS", 40)
    loop = make_loop(stripes, tmp_path / "run", 6, dropout=0)
    before, random = state(loop.model), torch.get_rng_state()
    found = measure_rates(loop)
    assert same(state(loop.model), before)
    assert torch.equal(torch.get_rng_state(), random)
    assert 1e-6 < found.chosen < 1
    assert list(found.rates) == sorted(found.rates)
    assert min(found.losses) < found.losses[0]
