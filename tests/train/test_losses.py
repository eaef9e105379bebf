"""Losses with known answers."""

from __future__ import annotations

import math

import pytest
import torch

from surgery.artifact.manifest import OutputSpec
from surgery.data.targets import IGNORE
from surgery.train.losses import make_loss

LABELS = OutputSpec("softmax", ("a", "b", "c"))
SEVERAL = OutputSpec("sigmoid", ("a", "b", "c"))
MASKS = {
    1: OutputSpec("sigmoid", ("rest", "car"), (0, 1), "rest"),
    3: OutputSpec("softmax", ("a", "b", "c"), (0, 1, 2)),
}


def test_classes_are_judged_by_cross_entropy():
    loss = make_loss(LABELS, 0.0)
    assert loss(torch.zeros(2, 3), torch.tensor([0, 2])).item() == pytest.approx(math.log(3))


def test_smoothing_costs_the_sure():
    sure = torch.tensor([[20.0, 0.0]])
    assert make_loss(LABELS, 0.0)(sure, torch.tensor([0])) < 1e-6
    assert make_loss(LABELS, 0.1)(sure, torch.tensor([0])).item() == pytest.approx(1.0, abs=1e-3)


def test_several_labels_are_judged_one_by_one():
    logits, targets = torch.tensor([[0.0, 30.0, -30.0]]), torch.tensor([[1.0, 1.0, 0.0]])
    assert make_loss(SEVERAL, 0.0)(logits, targets).item() == pytest.approx(math.log(2) / 3)
    assert make_loss(SEVERAL, 0.2)(logits, targets).item() == pytest.approx(
        (math.log(2) + 2 * 3.0) / 3, abs=1e-4
    )


@pytest.mark.parametrize("outputs", [1, 3])
def test_ignored_pixels_count_in_neither_part(outputs):
    loss = make_loss(MASKS[outputs], 0.0)
    torch.manual_seed(0)
    logits = torch.randn(2, outputs, 4, 6)
    targets = torch.randint(0, max(2, outputs), (2, 4, 6))
    halved = loss(logits[:, :, :2], targets[:, :2])
    targets[:, 2:] = IGNORE
    assert loss(logits, targets).item() == pytest.approx(halved.item(), abs=1e-6)
    changed = logits.clone()
    changed[:, :, 2:] += 9
    assert loss(changed, targets).item() == pytest.approx(halved.item(), abs=1e-6)


@pytest.mark.parametrize("outputs", [1, 3])
def test_a_batch_that_is_all_ignored_costs_nothing(outputs):
    logits = torch.randn(1, outputs, 3, 3, requires_grad=True)
    loss = make_loss(MASKS[outputs], 0.0)(logits, torch.full((1, 3, 3), IGNORE))
    loss.backward()
    assert math.isfinite(loss.item())
    assert logits.grad is not None
    assert logits.grad.abs().max() == 0


def test_a_perfect_mask_costs_nothing():
    targets = torch.randint(0, 2, (1, 8, 8))
    logits = (40.0 * targets - 20.0)[:, None]
    assert make_loss(MASKS[1], 0.0)(logits, targets).item() < 1e-3
