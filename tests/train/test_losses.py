"""Losses with known answers."""

from __future__ import annotations

import math

import pytest
import torch

from surgery.artifact.manifest import OutputSpec
from surgery.data.targets import IGNORE, NO_LABEL
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


@pytest.mark.parametrize("name", ["ce", "focal"])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_class_of_index_255_is_learnt_and_an_image_without_a_label_is_not(name, weighted):
    many = OutputSpec("softmax", tuple(f"c{i}" for i in range(257)))
    loss = make_loss(many, name=name, weights=[2.0] * 257 if weighted else None)
    logits = torch.zeros(2, 257, requires_grad=True)
    value = loss(logits, torch.tensor([255, NO_LABEL]))
    value.backward()
    expected = math.log(257) * ((256 / 257) ** 2 if name == "focal" else 1)
    assert value.item() == pytest.approx(expected, rel=1e-5)
    assert logits.grad is not None
    assert logits.grad[0].abs().max() > 0
    assert logits.grad[1].abs().max() == 0


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


def test_weights_count_by_the_true_class():
    logits, targets = torch.randn(6, 3), torch.tensor([0, 1, 2, 2, 1, 0])
    weights = [1.0, 5.0, 0.5]
    wanted = torch.nn.CrossEntropyLoss(torch.tensor(weights))(logits, targets)
    assert make_loss(LABELS, weights=weights)(logits, targets).item() == pytest.approx(
        wanted.item(), abs=1e-6
    )
    several = torch.randint(0, 2, (6, 3)).float()
    wanted = torch.nn.BCEWithLogitsLoss(pos_weight=torch.tensor(weights))(logits, several)
    assert make_loss(SEVERAL, weights=weights)(logits, several).item() == pytest.approx(
        wanted.item(), abs=1e-6
    )


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("name", ["ce", "focal", "dice", "lovasz", "focal+lovasz"])
def test_every_loss_of_masks_ignores_and_falls_to_zero(name, outputs):
    loss = make_loss(MASKS[outputs], name=name)
    torch.manual_seed(1)
    targets = torch.randint(0, max(2, outputs), (2, 4, 6))
    right = 60.0 * torch.nn.functional.one_hot(targets, max(2, outputs)).movedim(-1, 1).float() - 30
    right = right[:, 1:] if outputs == 1 else right
    assert loss(right, targets).item() == pytest.approx(0, abs=1e-3)
    assert loss(-right, targets).item() > 0.3
    logits = torch.randn(2, outputs, 4, 6)
    halved = loss(logits[:, :, :2], targets[:, :2])
    targets[:, 2:] = IGNORE
    assert loss(logits, targets).item() == pytest.approx(halved.item(), abs=1e-6)
    logits.requires_grad_()
    loss(logits, torch.full((2, 4, 6), IGNORE)).backward()
    assert logits.grad.abs().max() == 0


def test_the_focal_loss_of_one_label():
    logits = torch.tensor([[math.log(3.0), 0.0, -40.0]])  # 3/4, 1/4, 0
    for truth, share in ((0, 0.75), (1, 0.25)):
        wanted = -((1 - share) ** 2) * math.log(share)
        found = make_loss(LABELS, name="focal")(logits, torch.tensor([truth])).item()
        assert found == pytest.approx(wanted, abs=1e-5)


def test_lovasz_of_hard_masks_is_one_minus_iou():
    targets = torch.tensor([[[1, 1, 1, 0, 0, 0]]])
    found = torch.tensor([[[1, 1, 0, 1, 0, 0]]])  # 2 of 4
    logits = torch.stack([1 - found, found], 1) * 200.0
    output = OutputSpec("softmax", ("rest", "car"), (0, 1))
    assert make_loss(output, name="lovasz")(logits, targets).item() == pytest.approx(0.5, abs=1e-4)
