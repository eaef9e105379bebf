"""Mixup and CutMix of images and of activations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from surgery.data.table import Item
from surgery.train.average import Average
from surgery.train.feed import Batch
from surgery.train.mixing import mix, mixed_loss

N = 6


def batch(inputs: dict[str, torch.Tensor]) -> Batch:
    items = [Item(Path(f"{i}.png"), i, None, "train") for i in range(N)]
    return Batch(items, inputs, torch.arange(N), (8, 8))


def images() -> torch.Tensor:
    """Images filled with their own number, (n, 8, 8, 3)."""
    return torch.arange(N, dtype=torch.uint8)[:, None, None, None].expand(N, 8, 8, 3).contiguous()


def test_mixup_gives_each_image_its_share_of_the_other() -> None:
    mixed, others, share = mix(batch({"images": images()}), 0.5, 0, (0, 1))
    assert sorted(others.tolist()) == list(range(N))
    wanted = share * torch.arange(N) + (1 - share) * others
    torch.testing.assert_close(mixed.inputs["images"][:, 3, 5, 1], wanted.float())
    again, _, same = mix(batch({"images": images()}), 0.5, 0, (0, 1))
    assert same == share
    assert torch.equal(again.inputs["images"], mixed.inputs["images"])


@pytest.mark.parametrize("seed", range(8))
def test_cutmix_pastes_as_much_as_it_says(seed: int) -> None:
    maps = images().permute(0, 3, 1, 2).float()  # (n, 3, 8, 8)
    coarse = maps[:, :, ::2, ::2].contiguous()
    mixed, others, share = mix(batch({"2": maps, "state": coarse}), 0, 1.0, (seed,))
    for value in mixed.inputs.values():
        own = (value[:, 0] == torch.arange(N)[:, None, None]).double().mean(dim=(1, 2))
        changed = others != torch.arange(N)
        np.testing.assert_allclose(own[changed], share)
    pasted = mixed.inputs["2"][:, 0] != torch.arange(N)[:, None, None]
    assert torch.equal(pasted[:, ::2, ::2], mixed.inputs["state"][:, 0] != torch.arange(N)[:, None, None])
    assert torch.equal(maps, images().permute(0, 3, 1, 2).float())  # what is kept is not written to


@pytest.mark.parametrize("seed", range(4))
def test_cutmix_pastes_regions_of_a_state_with_its_channels_last(seed: int) -> None:
    maps = images().permute(0, 3, 1, 2).float()  # (n, 3, 8, 8)
    state = images()[:, ::2, ::2].float()  # (n, 4, 4, 3)
    mixed, others, share = mix(batch({"2": maps, "state": state}), 0, 1.0, (seed,), channels_last=True)
    own = mixed.inputs["state"] == torch.arange(N)[:, None, None, None]  # (n, 4, 4, 3)
    assert torch.equal(own, own[..., :1].expand_as(own))
    assert torch.equal(own[..., 0], (mixed.inputs["2"][:, 0] == torch.arange(N)[:, None, None])[:, ::2, ::2])
    changed = others != torch.arange(N)
    np.testing.assert_allclose(own.double().mean(dim=(1, 2, 3))[changed], share)


def test_the_loss_is_shared_too() -> None:
    loss = torch.nn.functional.cross_entropy
    logits, targets, others = torch.randn(4, 3), torch.tensor([0, 1, 2, 0]), torch.tensor([1, 1, 0, 0])
    wanted = 0.3 * loss(logits, targets) + 0.7 * loss(logits, others)
    assert mixed_loss(loss, logits, targets, others, 0.3).item() == pytest.approx(wanted.item())


def test_the_average_follows_slowly_and_gives_the_place_back() -> None:
    live = {"w": torch.zeros(2), "n": torch.tensor(0)}
    average = Average(live, 0.9)
    live["w"] += 1
    live["n"] += 5
    average.update(1000)
    assert average.tensors["w"].tolist() == pytest.approx([0.1, 0.1])
    average.update(0)  # at the first steps it follows faster: 1/10 stays
    assert average.tensors["w"].tolist() == pytest.approx([0.1 * 0.1 + 0.9] * 2)
    with average.in_place():
        assert live["w"].tolist() == pytest.approx([0.91] * 2)
    assert live["w"].tolist() == [1, 1]
    assert live["n"].item() == average.tensors["n"].item() == 5
