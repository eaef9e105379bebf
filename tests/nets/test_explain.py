"""Class activation maps add up to the logits that they explain, and lie where the evidence is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from surgery.nets.assemble import Model, build_model
from surgery.nets.heads.pooled import POOLS, Pooled, _overlaps
from surgery.nets.stages import StageInfo

STAGES = (StageInfo("stage1", 8, 3, 1, 1), StageInfo("stage2", 16, 5, 1, 1))


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def make_head(pool: str) -> Pooled:
    head = Pooled(pool, STAGES, 4).eval()
    torch.nn.init.normal_(head.linear.weight)
    torch.nn.init.normal_(head.linear.bias)
    return head


def add_up(cam: torch.Tensor, head: Any) -> torch.Tensor:
    return cam.mean(dim=(2, 3)) + head.linear.bias


@pytest.mark.parametrize("pool", POOLS)
def test_the_mean_over_the_positions_plus_the_bias_is_the_logits(pool: str) -> None:
    head = make_head(pool)
    features = [torch.randn(2, 3, 7, 11), torch.randn(2, 5, 3, 4)]  # no side divides the other
    cam = head.explain(features)
    assert cam.shape == (2, 4, 3, 4)
    torch.testing.assert_close(add_up(cam, head), head(features, (0, 0)))


def test_evidence_lies_where_it_was_found() -> None:
    head = Pooled("avg", STAGES[:1], 2)
    with torch.no_grad():
        head.linear.weight.copy_(torch.tensor([[1.0, 0, 0], [0, -1, 0]]))
    x = torch.zeros(1, 3, 2, 2)
    x[0, 0, 0, 1], x[0, 1, 1, 0] = 3, 4
    # Pooled (0.75, 1, 0) has the length 1.25 and is brought to √3.
    unit = 3**0.5 / 1.25
    want = torch.tensor([[[0, 3], [0, 0]], [[0, 0], [-4, 0]]]) * unit
    torch.testing.assert_close(head.explain([x])[0], want)


def test_a_maximum_is_explained_by_its_place_alone_and_ties_share_it() -> None:
    head = Pooled("max", STAGES[:1], 1)
    with torch.no_grad():
        head.linear.weight.copy_(torch.tensor([[1.0, 0, 0]]))
    x = torch.zeros(1, 3, 1, 4)
    x[0, 0, 0] = torch.tensor([1.0, 2.0, 2.0, -1.0])
    unit = 3**0.5 / 2
    torch.testing.assert_close(head.explain([x])[0, 0, 0], torch.tensor([0, 4.0, 4.0, 0]) * unit)


def test_resampling_by_area_keeps_the_mean() -> None:
    torch.testing.assert_close(_overlaps(3, 2), torch.tensor([[2, 1, 0], [0, 1, 2]]) / 3)
    torch.testing.assert_close(_overlaps(7, 4).mean(0), torch.full((7,), 1 / 7))


def build(head: str, outputs: int = 3, task: str = "classify") -> Model:
    weights: Any = SimpleNamespace(state=None)
    return build_model("test_resnet", head, task, outputs, None, 0.0, weights, seed=0).eval()


@pytest.mark.parametrize("flips", [False, True])
def test_a_model_explains_its_own_answer(flips: bool) -> None:
    model = build("avg")
    model.test_flips = flips
    images = torch.randint(0, 256, (2, 48, 64, 3), dtype=torch.uint8)
    with torch.inference_mode():
        logits, embedding = model(images)
        explained, same, cam = model.explain(images)
        torch.testing.assert_close(explained, logits)
        torch.testing.assert_close(same, embedding)
        torch.testing.assert_close(add_up(cam, model.head), logits)
        if flips:  # the mirrored image's map is turned back
            turned = model.explain(images.flip(2))[2]
            torch.testing.assert_close(turned.flip(3), cam)


def test_features_and_masks_have_no_map() -> None:
    assert build("avg").explains
    assert not build("avg", outputs=0).explains
    assert not build("deconv", task="segment").explains
