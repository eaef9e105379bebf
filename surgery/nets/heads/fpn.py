"""Segmentation by a feature pyramid: all levels enlarged to the shallowest one and added."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from surgery.artifact.errors import ConfigError
from surgery.nets.heads.output import build_lateral, build_output
from surgery.nets.stages import StageInfo

PYRAMID_WIDTH = 128
BRANCH_WIDTH = 64
GROUPS = 16


class FeaturePyramid(nn.Module):
    """Top-down pyramid with a semantic branch.

    With the last three stages of VGG16 and an h×w image:

        stage5 (512, h/16, w/16)  1×1 → (128, h/16, w/16)        → 2 × [3×3, enlarge ×2] → (64, h/4, w/4)
        stage4 (512, h/8, w/8)    1×1 → (128, h/8, w/8)  + above → 1 × [3×3, enlarge ×2] → (64, h/4, w/4)
        stage3 (256, h/4, w/4)    1×1 → (128, h/4, w/4)  + above →      [3×3]            → (64, h/4, w/4)
        sum (64, h/4, w/4)        1×1 → (outputs, h/4, w/4) enlarged → (outputs, h, w)

    Every 3×3 convolution is followed by group norm and ReLU; enlarging is bilinear. The paper's 3×3
    convolution on each pyramid level is left out: the branch begins with one. The paper's widths, 256 and
    128, are halved.

    Args:
        stages: The stages used, shallow to deep; each stride is a power of two times the first.
        outputs: Output channels.
        dropout: Share of channels of the sum that are dropped in training.

    References:
        Lin et al. 2017, arXiv:1612.03144, section 3 (pyramid);
        Kirillov et al. 2019, arXiv:1901.02446, section 3 (semantic branch).
    """

    multiple = 1

    def __init__(self, stages: Sequence[StageInfo], outputs: int, dropout: float = 0.0) -> None:
        super().__init__()
        ratios = [stage.stride // stages[0].stride for stage in stages]
        if any(r & (r - 1) or r == 0 for r in ratios) or ratios != sorted(set(ratios)):
            raise ConfigError(
                "the fpn head needs stages whose strides rise by powers of two, not "
                f"{[stage.stride for stage in stages]}",
                "choose other --stages",
            )
        self.laterals = nn.ModuleList(build_lateral(s.channels, PYRAMID_WIDTH) for s in stages)
        self.branches = nn.ModuleList(_branch(ratio.bit_length() - 1) for ratio in ratios)
        self.dropout = nn.Dropout2d(dropout)
        self.output = build_output(BRANCH_WIDTH, outputs)

    def forward(self, features: list[Tensor], size: tuple[int, int]) -> Tensor:
        """Map features (n, c_i, H/s_i, W/s_i), shallow to deep, to logits (n, outputs, H, W)."""
        above: Tensor | None = None
        total: Tensor | None = None
        for lateral, branch, feature in zip(
            reversed(self.laterals), reversed(self.branches), reversed(features), strict=True
        ):
            level = lateral(feature)  # (n, c, H/s, W/s) -> (n, 128, H/s, W/s)
            if above is not None:
                level = level + _enlarge(above, (level.shape[2], level.shape[3]))
            above = level
            part = branch(level)  # (n, 128, H/s, W/s) -> (n, 64, H/s0, W/s0)
            total = part if total is None else total + part
        assert total is not None, "a head has at least one stage"
        return _enlarge(self.output(self.dropout(total)), size)  # -> (n, outputs, H, W)


def _branch(doublings: int) -> nn.Sequential:
    """(n, 128, h, w) -> (n, 64, h·2^doublings, w·2^doublings)."""
    layers: list[nn.Module] = []
    for k in range(max(doublings, 1)):
        width = PYRAMID_WIDTH if k == 0 else BRANCH_WIDTH
        conv = nn.Conv2d(width, BRANCH_WIDTH, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        layers += [conv, nn.GroupNorm(GROUPS, BRANCH_WIDTH), nn.ReLU(inplace=True)]
        if doublings:
            layers.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
    return nn.Sequential(*layers)


def _enlarge(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
