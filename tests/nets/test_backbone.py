"""Backbones cut into stages: the same numbers as timm, from any stage, and frozen where they say so."""

from __future__ import annotations

import re
from functools import cache

import pytest
import timm
import torch
from torch import Tensor, nn

from surgery.artifact.errors import ConfigError, WeightsError
from surgery.nets.backbone import Backbone, build_backbone, set_trainable
from surgery.nets.stages import Stage, Tap

NAMES = (
    "vgg16",
    "vgg16_bn",
    "resnet50",
    "tf_efficientnet_lite0",
    "efficientnet_b0",
    "legacy_xception",
    "mobilenetv3_large_100",
    "convnext_tiny",
)
TINY = "test_resnet"


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@cache
def state_of(name: str) -> dict[str, Tensor]:
    """Weights of a whole network whose batch norms do something; not to be changed."""
    torch.manual_seed(0)
    full = timm.create_model(name)
    for module in full.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.8, 1.2)
            nn.init.normal_(module.bias, std=0.1)
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    # VGG's classifier is half a gigabyte that no stage uses.
    return {k: v for k, v in full.state_dict().items() if not k.startswith("pre_logits")}


def timm_features(name: str, state: dict[str, Tensor], images: Tensor) -> list[Tensor]:
    """What timm's own feature extractor gives for the same weights."""
    net = timm.create_model(name, features_only=True).eval()
    filled = {}
    for key in net.state_dict():
        plain = key.removeprefix("body.")
        filled[key] = state[plain if plain in state else re.sub(r"^(\w+?)_(\d+)\.", r"\1.\2.", plain)]
    net.load_state_dict(filled)
    with torch.no_grad():
        return net(images)


@pytest.mark.parametrize("name", NAMES)
def test_stages_give_timms_features(name: str) -> None:
    state = state_of(name)
    images = torch.randn(2, 3, 96, 64)
    backbone = build_backbone(name, state)
    with torch.no_grad():
        _, features = backbone.run(images)
    expected = timm_features(name, state, images)
    compared = 0
    for stage, feature, known in zip(backbone.info, features, expected, strict=False):
        bound = 1e-5 * max(1.0, known.abs().max().item())
        assert (feature - known).abs().max().item() <= bound
        assert feature.shape[1] == stage.channels
        if stage.exact:
            assert feature.shape[2:] == (96 // stage.stride, 64 // stage.stride)
        assert stage.exact or name == "legacy_xception"
        compared += 1
    assert compared == len(backbone.pyramid)


@pytest.mark.parametrize("name", NAMES)
def test_training_can_go_on_from_every_stored_state(name: str) -> None:
    backbone = build_backbone(name, state_of(name))
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        _, whole = backbone.run(images)
        for cut in range(1, len(backbone.stages)):
            state, before = backbone.run(images, 0, cut)
            stored = state.clone()
            _, after = backbone.run(state, cut)
            assert torch.equal(state, stored), "a later stage overwrote the stored state"
            for one, other in zip(before + after, whole, strict=True):
                assert torch.equal(one, other)


def test_vgg16_has_its_five_stages() -> None:
    info = build_backbone("vgg16", state_of("vgg16")).info
    assert [stage.name for stage in info] == [f"stage{k}" for k in range(1, 6)]
    assert [stage.channels for stage in info] == [64, 128, 256, 512, 512]
    assert [stage.stride for stage in info] == [1, 2, 4, 8, 16]
    assert [stage.layers for stage in info] == [2, 2, 3, 3, 3]
    assert sum(stage.parameters for stage in info) == 14_714_688  # Simonyan & Zisserman, configuration D


def test_efficientnet_ends_with_the_layer_its_classifier_sees() -> None:
    state = state_of("efficientnet_b0")
    backbone = build_backbone("efficientnet_b0", state)
    assert backbone.info[-1].name == "conv_head"
    assert backbone.info[-1].channels == 1280
    assert len(backbone.stages) - 1 not in backbone.pyramid
    full = timm.create_model("efficientnet_b0").eval()
    full.load_state_dict(state)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(backbone.run(images)[1][-1], full.forward_features(images))


def test_input_scale_is_that_of_the_weights() -> None:
    assert build_backbone("tf_efficientnet_lite0", None).mean == (0.5, 0.5, 0.5)
    assert build_backbone("vgg16", state_of("vgg16")).std == (0.229, 0.224, 0.225)


def test_a_first_layer_in_place_is_found_and_the_state_kept() -> None:
    stage = Stage([("act", nn.ReLU(inplace=True))], Tap("act"), channels_last=False)
    state = torch.tensor([-1.0, 1.0])
    stage.copies_input = True
    stage(state)
    assert state.tolist() == [-1.0, 1.0]


def test_no_hook_is_left_behind() -> None:
    backbone = build_backbone("legacy_xception", None)
    with pytest.raises(RuntimeError):
        backbone.run(torch.randn(1, 4, 64, 64))
    backbone.run(torch.randn(1, 3, 64, 64))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in backbone.modules())


def train_steps(backbone: Backbone, steps: int = 2) -> None:
    """A few steps of SGD on everything that is trainable, in training mode."""
    backbone.train()
    trained = [p for p in backbone.parameters() if p.requires_grad]
    optimiser = torch.optim.SGD([*trained, nn.Parameter(torch.zeros(1))], lr=0.01)
    for _ in range(steps):
        _, features = backbone.run(torch.randn(2, 3, 64, 64) * 3 + 1)
        if trained:
            sum(feature.mean() for feature in features).backward()
        optimiser.step()
        optimiser.zero_grad()


@pytest.mark.parametrize("name", ["vgg16_bn", TINY])
@pytest.mark.parametrize("train_bn", [False, True])
def test_frozen_stages_stay_bit_for_bit(name: str, train_bn: bool) -> None:
    backbone = build_backbone(name, state_of(name))
    first = len(backbone.stages) - 1
    set_trainable(backbone, first, train_bn)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    train_steps(backbone)
    after = backbone.state_dict()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed, "nothing was trained"
    assert all(key.startswith(f"stages.{first}.") for key in changed)
    assert any("running_mean" in key for key in changed) == train_bn


def test_all_frozen_and_all_trained() -> None:
    backbone = build_backbone(TINY, None)
    set_trainable(backbone, len(backbone.stages))
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    train_steps(backbone)
    assert all(torch.equal(before[key], value) for key, value in backbone.state_dict().items())
    set_trainable(backbone, 0)
    assert all(parameter.requires_grad for parameter in backbone.parameters())


def test_weights_are_copied_and_named_as_in_timm() -> None:
    state = {key: value.clone() for key, value in state_of(TINY).items()}
    backbone = build_backbone(TINY, state)
    named = backbone.timm_state()
    assert named
    assert all(torch.equal(named[key], state[key]) for key in named)
    assert set(state) - set(named) == {"fc.weight", "fc.bias"}
    with torch.no_grad():
        next(backbone.parameters()).add_(1)
    assert all(torch.equal(value, state_of(TINY)[key]) for key, value in state.items())


def test_wrong_weights_are_reported_together() -> None:
    state = dict(state_of(TINY))
    key = next(k for k in state if k.startswith("layer2") and k.endswith("conv1.weight"))
    gone = next(k for k in state if k.startswith("layer1") and k.endswith("conv1.weight"))
    state[key] = state[key][:1]
    del state[gone]
    state["layer1.7.conv1.weight"] = torch.zeros(1)
    with pytest.raises(WeightsError) as caught:
        build_backbone(TINY, state)
    for name in (key, gone, "layer1.7.conv1.weight"):
        assert name in caught.value.message


def test_weights_of_a_deeper_sister_are_refused() -> None:
    with pytest.raises(WeightsError, match=r"layer3\.6"):
        build_backbone("resnet50", timm.create_model("resnet101").state_dict())


def test_a_network_that_cannot_be_cut_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot be cut"):
        build_backbone("vit_tiny_patch16_224", None)
    with pytest.raises(ConfigError, match="vgg16"):
        build_backbone("vgg166", None)


def test_weights_of_a_cut_backbone_give_the_stages_they_have() -> None:
    whole = build_backbone("test_efficientnet", state_of("test_efficientnet"))
    cut = whole.trimmed(3).timm_state()
    again = build_backbone("test_efficientnet", cut)
    assert again.info == whole.info[:3]
    images = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(again.run(images)[0], whole.run(images, 0, 3)[0])
    with pytest.raises(WeightsError, match="missing"):  # a whole network's file that lacks a stage
        build_backbone("test_efficientnet", cut | {"classifier.weight": torch.zeros(1000, 256)})


@pytest.mark.parametrize(("name", "last"), [("test_mambaout", True), ("test_convnext", False)])
def test_a_backbone_tells_where_the_channels_of_its_states_are(name, last):
    backbone = build_backbone(name, None)
    state, _ = backbone.run(torch.zeros(1, 3, 64, 96), 0, 2)
    assert backbone.channels_last == last
    assert state.shape[1:3] == ((8, 12) if last else (32, 8))


def test_what_is_computed_again_moves_the_running_statistics_once():
    found = []
    for recompute in (False, True):
        torch.manual_seed(0)
        backbone = build_backbone(TINY, None)
        set_trainable(backbone, 1, train_bn=True)
        backbone.train()
        backbone.recompute = recompute
        for _ in range(2):
            state, _ = backbone.run(torch.randn(2, 3, 64, 64))
            state.sum().backward()
        grads = {key: value.grad for key, value in backbone.named_parameters() if value.grad is not None}
        found.append((backbone.state_dict(), grads))
    (once, straight), (twice, again) = found
    assert straight.keys() == again.keys()
    for key, value in once.items():
        torch.testing.assert_close(twice[key], value, msg=key)
    for key, value in straight.items():
        torch.testing.assert_close(again[key], value)
