"""Progressive resizing: how large the input is while training has not grown to the full size yet."""

from __future__ import annotations

import dataclasses

from surgery.artifact.image import input_size
from surgery.artifact.manifest import InputSpec

MULTIPLE = 32
"""Pixels that the sides of a smaller fixed input are a multiple of: the stride of most backbones."""


def shrink_input(input: InputSpec, scale: float) -> InputSpec:
    """Return the input that training at a scale sees; `native` stays, its images are shrunk instead.

    Args:
        input: The full size, which validation and service see.
        scale: Share of its sides, above 0 and up to 1.
    """
    if scale == 1 or input.size_rule == "native":
        return input
    sides = [_round_side(side or 1, scale) for side in (input.width, input.height)]
    return dataclasses.replace(input, width=sides[0], height=sides[1])


def training_size(size: tuple[int, int], input: InputSpec, scale: float) -> tuple[int, int]:
    """Return the (width, height) that a training image of `size` (width, height) has as input at a scale."""
    width, height = input_size(size, shrink_input(input, scale))
    if input.size_rule != "native":
        return width, height
    return max(1, round(width * scale)), max(1, round(height * scale))


def describe_size(input: InputSpec, scale: float) -> str:
    """Return in words how large the input of training is at a scale."""
    small = shrink_input(input, scale)
    if small.size_rule != "native":
        return f"{small.width}×{small.height}"
    return "the images' own size" if scale == 1 else f"{scale:g} of the images' own size"


def _round_side(side: int, scale: float) -> int:
    return min(side, max(MULTIPLE, int(side * scale / MULTIPLE + 0.5) * MULTIPLE))
