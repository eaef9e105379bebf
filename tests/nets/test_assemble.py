"""Models put together: sizes, stored features, repeatable weights, and what is said of the layers."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn

from surgery.artifact.errors import ConfigError
from surgery.nets.assemble import Model, build_model, describe_layers
from surgery.nets.backbone import build_backbone, set_trainable

TINY = "test_resnet"
BACKBONES = (
    "vgg16",
    "vgg16_bn",
    "resnet50",
    "tf_efficientnet_lite0",
    "efficientnet_b0",
    "legacy_xception",
    "mobilenetv3_large_100",
    "convnext_tiny",
)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@cache
def random_state(name: str) -> dict[str, torch.Tensor]:
    """Random weights of a backbone, drawn once: VGG's unused classifier alone takes seconds."""
    return build_backbone(name, None).timm_state()


def assembled(backbone: str = TINY, head: str = "deconv", task: str = "segment", **given: Any) -> Model:
    """A model in inference mode, its head loud enough to see."""
    options = {"outputs": 2, "stages": None, "dropout": 0.0, "seed": 0} | given
    if "state" not in options:
        options["state"] = random_state(backbone) if backbone in BACKBONES else None
    weights: Any = SimpleNamespace(state=options.pop("state"))
    model = build_model(backbone, head, task, weights=weights, **options).eval()
    with torch.no_grad():
        model.head.output.weight.mul_(100) if task == "segment" else None
    return model


def photo(*shape: int, seed: int = 0) -> torch.Tensor:
    """Noise as uint8 images."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, shape, dtype=np.uint8))


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize(("head", "task"), [("deconv", "segment"), ("fpn", "segment"), ("avg", "classify")])
def test_any_backbone_answers_odd_sizes(backbone: str, head: str, task: str) -> None:
    model = assembled(backbone, head, task)
    with torch.inference_mode():
        for h, w in ((37, 53), (64, 33)):
            logits, embedding = model(photo(1, h, w, 3))
            assert logits.shape == ((1, 2, h, w) if task == "segment" else (1, 2))
            assert embedding.shape == (1, model.backbone.info[-1].channels)
            assert logits.isfinite().all()


def test_xceptions_unpadded_maps_are_aligned() -> None:
    model = assembled("legacy_xception", stages=("stage1", "stage2", "stage3"))
    with torch.inference_mode():
        assert model(photo(1, 40, 56, 3))[0].shape == (1, 2, 40, 56)


def test_normalise_scales_pads_and_lies_channels_last() -> None:
    model = assembled("vgg16")
    images = photo(2, 5, 18, 3)
    x = model.normalise(images)
    assert x.shape == (2, 3, 16, 32)
    assert x.is_contiguous(memory_format=torch.channels_last)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = ((images / 255 - mean) / std).permute(0, 3, 1, 2)
    torch.testing.assert_close(x[:, :, :5, :18], expected)
    assert not x[:, :, 5:].any()
    assert not x[..., 18:].any()
    assert assembled("vgg16", "avg", "classify").normalise(images).shape == (2, 3, 5, 18)


@pytest.mark.parametrize(("head", "task"), [("deconv", "segment"), ("gem", "classify")])
def test_stored_features_and_states_give_the_same_logits(head: str, task: str) -> None:
    model = assembled(TINY, head, task)
    images = photo(2, 45, 70, 3)
    with torch.no_grad():
        logits, _ = model(images)
        for cut in range(1, len(model.backbone.stages) + 1):
            state, before = model.backbone.run(model.normalise(images), 0, cut)
            _, after = model.backbone.run(state, cut)
            features = before + after
            again = model.decode([features[k] for k in model.head_stages], (45, 70))
            assert torch.equal(again, logits)


class Coordinates(nn.Module):
    """A head that answers where each pixel is: row, column."""

    def forward(self, features: list[torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
        rows, columns = torch.meshgrid(*(torch.arange(float(side)) for side in size), indexing="ij")
        return torch.stack([rows, columns])[None]


def test_what_was_padded_is_cropped_again() -> None:
    model = assembled("vgg16")
    model.head = Coordinates()
    with torch.no_grad():
        logits, _ = model(photo(1, 21, 35, 3))
    assert torch.equal(logits[0, 0, :, 0], torch.arange(21.0))
    assert torch.equal(logits[0, 1, 0], torch.arange(35.0))


def test_embedding_is_the_mean_of_the_deepest_map() -> None:
    model = assembled("vgg16")
    images = photo(1, 32, 48, 3)
    with torch.no_grad():
        _, embedding = model(images)
        _, features = model.backbone.run(model.normalise(images))
    torch.testing.assert_close(embedding, features[-1].mean(dim=(2, 3)))


def test_weights_repeat_bit_for_bit_and_leave_the_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one = assembled(seed=3).state_dict()
    assert torch.equal(torch.rand(3), expected)
    torch.manual_seed(6)
    two, three = assembled(seed=3).state_dict(), assembled(seed=4).state_dict()
    assert all(torch.equal(one[key], two[key]) for key in one)
    for part in ("backbone.", "head."):
        assert any(not torch.equal(one[key], three[key]) for key in one if key.startswith(part))


def test_head_begins_the_same_behind_given_and_random_weights() -> None:
    given = assembled(state=timm.create_model(TINY).state_dict()).head.state_dict()
    random = assembled().head.state_dict()
    assert all(torch.equal(given[key], random[key]) for key in given)


def test_stages_not_needed_are_cut_off() -> None:
    model = assembled("vgg16", stages=("stage4", "stage2"))
    assert model.head_stages == (1, 3)
    assert len(model.backbone.stages) == len(model.backbone.info) == 4
    assert model.stride == 8
    assert len(assembled("efficientnet_b0").backbone.stages) == 5  # no classifier tail for masks


def test_a_training_step_moves_the_head_and_not_the_frozen_backbone() -> None:
    model = assembled("vgg16_bn")
    set_trainable(model.backbone, len(model.backbone.stages))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.train()
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    logits, _ = model(photo(1, 32, 32, 3))
    logits.square().sum().backward()
    optimiser.step()
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed
    assert all(key.startswith("head.") for key in changed)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"head": "avg"}, "not for segment"),
        ({"head": "unett"}, "no head"),
        ({"task": "detect"}, "task"),
        ({"stages": ("stage9",)}, "stage9"),
        ({"backbone": "efficientnet_b0", "stages": ("conv_head",)}, "conv_head"),
        ({"backbone": "swin_tiny_patch4_window7_224"}, "224"),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, Any], found: str) -> None:
    with pytest.raises(ConfigError, match=found):
        assembled(**given)


def test_the_fate_of_every_layer_is_told() -> None:
    model = assembled("vgg16")
    told = describe_layers(model, first_trainable=4, kept=True)
    fates = {part["name"]: part["fate"] for part in told["parts"]}
    assert fates == {f"stage{k}": "kept, frozen" for k in range(1, 5)} | {
        "stage5": "kept, retrained",
        "head": "new",
    }
    head = sum(p.numel() for p in model.head.parameters())
    assert told["totals"]["kept, frozen"] == {"layers": 10, "parameters": 14_714_688 - 7_079_424}
    assert told["trained"] == 7_079_424 + head
    assert sum(total["parameters"] for total in told["totals"].values()) == sum(
        p.numel() for p in model.parameters()
    )
    random = describe_layers(model, first_trainable=0, kept=False)
    assert {part["fate"] for part in random["parts"]} == {"new"}
