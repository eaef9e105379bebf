"""Heads: any stages, any size, known answers of the pooling, and what each refuses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from surgery.artifact.errors import ConfigError
from surgery.nets.heads import CLASSIFY_HEADS, SEGMENT_HEADS, SMP_HEADS, build_head, default_stages
from surgery.nets.heads.deconv import Deconv
from surgery.nets.heads.smp_decoder import DECODERS, GridPool
from surgery.nets.stages import StageInfo


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def row(*strides: int, channels: int = 8) -> list[StageInfo]:
    """Stages of the given strides."""
    return [StageInfo(f"s{s}", s, channels + 4 * k, 1, 1) for k, s in enumerate(strides)]


def maps(stages: list[StageInfo], size: tuple[int, int], n: int = 2) -> list[Tensor]:
    """Random feature maps of an image of this size."""
    return [torch.randn(n, s.channels, size[0] // s.stride, size[1] // s.stride) for s in stages]


@pytest.mark.parametrize("name", SEGMENT_HEADS)
@pytest.mark.parametrize("strides", [(1, 2, 4, 8, 16), (2, 4, 8, 16, 32)])
def test_segment_heads_give_logits_of_the_size_and_train_all_weights(
    name: str, strides: tuple[int, ...]
) -> None:
    every = row(*strides)
    stages = [stage for stage in every if stage.name in default_stages(name, every)]
    head = build_head(name, stages, 3, dropout=0.1).train()
    side = strides[-1] * head.multiple
    size = (side, 2 * side)
    features = maps(stages, size)
    logits = head(features, size)
    assert logits.shape == (2, 3, *size)
    logits.square().sum().backward()
    idle = [key for key, parameter in head.named_parameters() if parameter.grad is None]
    assert not idle
    assert all(parameter.grad.isfinite().all() for parameter in head.parameters())


@pytest.mark.parametrize("name", SEGMENT_HEADS)
def test_every_map_that_a_head_asks_for_counts(name: str) -> None:
    every = row(2, 4, 8, 16)
    stages = [stage for stage in every if stage.name in default_stages(name, every)]
    head = build_head(name, stages, 1, dropout=0.0).train()
    side = 16 * head.multiple
    features = [feature.requires_grad_() for feature in maps(stages, (side, side))]
    head(features, (side, side)).square().sum().backward()
    assert all(feature.grad is not None for feature in features)


@pytest.mark.parametrize("strides", [(16,), (1,), (4, 32), (1, 8), (4, 8, 16, 32)])
@pytest.mark.parametrize("name", ["deconv", "fpn"])
def test_own_heads_take_any_stages(name: str, strides: tuple[int, ...]) -> None:
    stages = row(*strides)
    logits = build_head(name, stages, 2, dropout=0.0)(maps(stages, (32, 64)), (32, 64))
    assert logits.shape == (2, 2, 32, 64)


@pytest.mark.parametrize("name", ["unet", "linknet", "manet", "upernet", "segformer", "deeplabv3"])
def test_decoders_that_take_gaps(name: str) -> None:
    stages = row(4, 8, 16, 32)  # convnext and its like have no stride 2
    chosen = [stage for stage in stages if stage.name in default_stages(name, stages)]
    assert build_head(name, chosen, 1, 0.0)(maps(chosen, (64, 64)), (64, 64)).shape == (2, 1, 64, 64)


@pytest.mark.parametrize(
    ("name", "strides"),
    [
        ("deconv", (3, 6)),
        ("fpn", (4, 12)),
        ("unetplusplus", (4, 8, 16)),
        ("smp-fpn", (4, 8, 32)),
        ("pan", (4, 16)),
        ("deeplabv3plus", (8, 16)),
        ("unet", (64,)),
    ],
)
def test_stages_that_do_not_fit_are_refused_with_those_that_do(name: str, strides: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="stride"):
        build_head(name, row(*strides), 1, 0.0)


def test_pspnet_says_what_its_channels_must_be() -> None:
    with pytest.raises(ConfigError, match="multiple of 4"):
        build_head("pspnet", row(4, channels=9), 1, 0.0)


def test_unknown_head_and_dropout() -> None:
    with pytest.raises(ConfigError, match="'deconv'") as caught:
        build_head("deconf", row(4), 1, 0.0)
    assert all(name in caught.value.hint for name in (*CLASSIFY_HEADS, *SEGMENT_HEADS))
    with pytest.raises(ConfigError, match="dropout"):
        build_head("deconv", row(4), 1, 1.0)


def test_every_decoder_is_offered() -> None:
    assert set(DECODERS) == set(SMP_HEADS)


def test_deconv_of_vgg16_has_the_channels_of_its_drawing() -> None:
    stages = [
        StageInfo("stage3", 4, 256, 3, 0),
        StageInfo("stage4", 8, 512, 3, 0),
        StageInfo("stage5", 16, 512, 3, 0),
    ]
    head = Deconv(stages, 1)
    assert [(up.in_channels, up.out_channels) for up in head.ups] == [(64, 64), (64, 64), (64, 32), (32, 16)]
    laterals = 64 * (256 + 512 + 512) + 3 * 64
    ups = 16 * (2 * 64 * 64 + 64 * 32 + 32 * 16) + 64 + 64 + 32 + 16
    assert sum(p.numel() for p in head.parameters()) == laterals + ups + 16 + 1


def test_deconv_begins_as_bilinear_enlarging() -> None:
    head = Deconv(row(2), 1)
    up = head.ups[0]
    line = torch.arange(8.0).repeat(1, up.in_channels, 8, 1)  # a ramp in every channel
    out = up(line)[0, :, 2:-2, 2:-2]
    step = out.diff(dim=2)
    torch.testing.assert_close(step, step[:, :1, :1].expand_as(step), atol=1e-4, rtol=1e-4)


def pooled_of(name: str, x: Tensor) -> Tensor:
    """What reaches the linear layer."""
    head = build_head(name, [StageInfo("s", 1, x.shape[1], 1, 1)], 2, 0.0).eval()
    seen: list[Tensor] = []
    head.linear.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    head([x], (1, 1))
    return seen[0]


def test_pooling_has_known_answers() -> None:
    x = torch.tensor([[1.0, 2.0, 3.0, 6.0], [4.0, 4.0, 4.0, 4.0]]).view(1, 2, 2, 2)
    gem = ((1 + 8 + 27 + 216) / 4) ** (1 / 3)  # eq. 3 with the power 3

    def of_length_root_2(*values: float) -> Tensor:
        vector = torch.tensor(values)
        return vector / vector.norm() * 2**0.5

    average, largest = of_length_root_2(3.0, 4.0), of_length_root_2(6.0, 4.0)
    torch.testing.assert_close(pooled_of("avg", x)[0], average)
    torch.testing.assert_close(pooled_of("max", x)[0], largest)
    torch.testing.assert_close(pooled_of("avgmax", x)[0], torch.cat([average, largest]))
    torch.testing.assert_close(pooled_of("gem", x)[0], of_length_root_2(gem, 4.0))


def test_the_scale_of_a_backbone_does_not_matter() -> None:
    x = torch.rand(2, 5, 3, 3)
    for name in ("avg", "max", "avgmax", "gem"):
        torch.testing.assert_close(pooled_of(name, 100 * x), pooled_of(name, x))


def test_gem_learns_its_power_and_stands_dead_maps() -> None:
    head = build_head("gem", row(1), 2, 0.0)
    head([torch.zeros(1, 8, 2, 2)], (2, 2)).sum().backward()
    assert head.power.grad is not None
    assert head.power.grad.isfinite().all()


def test_classify_heads_join_stages() -> None:
    stages = row(4, 8)
    head = build_head("avgmax", stages, 5, 0.5)
    assert head(maps(stages, (16, 16)), (16, 16)).shape == (2, 5)
    assert head.linear.in_features == 2 * (8 + 12)


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (6, 6), (7, 13)])
@pytest.mark.parametrize("side", [2, 3, 6])
def test_grid_pool_is_torchs_adaptive_pooling(side: int, size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size)
    torch.testing.assert_close(GridPool(side)(x), nn.AdaptiveAvgPool2d(side)(x))
