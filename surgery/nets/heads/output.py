"""The convolutions that heads of masks share."""

from __future__ import annotations

from torch import nn


def build_output(width: int, outputs: int, kernel: int = 1) -> nn.Conv2d:
    """Return the last convolution: (n, width, h, w) -> (n, outputs, h, w), its first answers near 0."""
    conv = nn.Conv2d(width, outputs, kernel, padding=kernel // 2)
    nn.init.normal_(conv.weight, std=0.01)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def build_lateral(channels: int, width: int) -> nn.Conv2d:
    """Return a 1×1 convolution (n, channels, h, w) -> (n, width, h, w) that keeps the variance."""
    conv = nn.Conv2d(channels, width, 1)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="linear")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv
