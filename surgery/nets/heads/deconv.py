"""Segmentation by transposed convolutions, one per halving of the backbone, with laterals."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from surgery.artifact.errors import ConfigError
from surgery.nets.heads.output import build_lateral, build_output
from surgery.nets.stages import StageInfo

WIDTH = 64
MIN_WIDTH = 16


class Deconv(nn.Module):
    """Undo every halving of the backbone by one transposed convolution, back to full resolution.

    With the last three stages of VGG16 and an h×w image:

        stage5 (512, h/16, w/16)  1×1 → (64, h/16, w/16)
                                  up  → (64, h/8, w/8)
        stage4 (512, h/8, w/8)    1×1 → (64, h/8, w/8)    added
                                  up  → (64, h/4, w/4)
        stage3 (256, h/4, w/4)    1×1 → (64, h/4, w/4)    added
                                  up  → (32, h/2, w/2)    no stage used here: fewer channels
                                  up  → (16, h, w)
                                  1×1 → (outputs, h, w)

    Args:
        stages: The stages used, shallow to deep; strides are powers of two.
        outputs: Output channels.
        dropout: Share of channels dropped before the shallowest lateral's map is enlarged.

    References:
        Noh et al. 2015, arXiv:1505.04366 (transposed convolutions mirroring VGG16);
        Long et al. 2015, arXiv:1411.4038 (lateral connections, bilinear start).
    """

    multiple = 1

    def __init__(self, stages: Sequence[StageInfo], outputs: int, dropout: float = 0.0) -> None:
        super().__init__()
        strides = [stage.stride for stage in stages]
        if any(s & (s - 1) for s in strides) or strides != sorted(set(strides)):
            raise ConfigError(
                f"the deconv head needs rising strides that are powers of two, not {strides}",
                "choose other --stages",
            )
        self.strides = strides
        self.laterals = nn.ModuleList(build_lateral(stage.channels, WIDTH) for stage in stages)
        ups, width = [], WIDTH
        for stride in self._targets():
            narrower = WIDTH if stride >= strides[0] else max(width // 2, MIN_WIDTH)
            ups.append(_enlarging(width, narrower))
            width = narrower
        self.ups = nn.ModuleList(ups)
        self.dropout = nn.Dropout2d(dropout)
        self.output = build_output(width, outputs)

    def _targets(self) -> list[int]:
        """Strides after each transposed convolution: half the deepest, …, 2, 1."""
        steps = int(math.log2(self.strides[-1]))
        return [2**k for k in range(steps - 1, -1, -1)]

    def forward(self, features: list[Tensor], size: tuple[int, int]) -> Tensor:
        """Map features (n, c_i, H/s_i, W/s_i), shallow to deep, to logits (n, outputs, H, W)."""
        lateral = {
            stride: conv(feature)  # (n, c, H/stride, W/stride) -> (n, 64, H/stride, W/stride)
            for stride, conv, feature in zip(self.strides, self.laterals, features, strict=True)
        }
        x = lateral[self.strides[-1]]
        if self.strides[-1] == self.strides[0]:
            x = self.dropout(x)
        x = F.relu(x)
        for stride, up in zip(self._targets(), self.ups, strict=True):
            x = up(x)  # (n, c, H/2s, W/2s) -> (n, c', H/s, W/s)
            if stride in lateral:
                x = x + lateral[stride]
            if stride == self.strides[0]:
                x = self.dropout(x)
            x = F.relu(x)
        logits: Tensor = self.output(x)  # (n, 16, H, W) -> (n, outputs, H, W)
        return logits


@torch.no_grad()
def _enlarging(width: int, outputs: int) -> nn.ConvTranspose2d:
    """A transposed convolution that begins as bilinear enlarging times a random mix of channels.

    There is no checkerboard to unlearn.
    """
    up = nn.ConvTranspose2d(width, outputs, kernel_size=4, stride=2, padding=1)
    mix = torch.randn(width, outputs) * math.sqrt(2 / width)
    line = torch.tensor([0.25, 0.75, 0.75, 0.25])
    up.weight.copy_(mix[:, :, None, None] * line[:, None] * line[None, :])
    if up.bias is not None:
        nn.init.zeros_(up.bias)
    return up
