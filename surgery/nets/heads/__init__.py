"""Heads: what turns a backbone's feature maps into logits."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Protocol

from torch import Tensor, nn

from surgery.artifact.errors import ConfigError
from surgery.nets.heads.deconv import Deconv
from surgery.nets.heads.pooled import POOLS, Pooled
from surgery.nets.stages import StageInfo

CLASSIFY_HEADS = POOLS
SEGMENT_HEADS = ("deconv",)


class Head(Protocol):
    """What every head is, beside being a torch module."""

    def __call__(self, features: list[Tensor], size: tuple[int, int]) -> Tensor:
        """Map one feature map per stage used, shallow to deep, to logits.

        Args:
            features: Maps (n, c_i, H/s_i, W/s_i).
            size: (H, W), the size of the padded input.

        Returns:
            (n, outputs) for classification, (n, outputs, H, W) for segmentation.
        """


def build_head(name: str, stages: Sequence[StageInfo], outputs: int, dropout: float) -> nn.Module:
    """Build a head with new weights from the global generator.

    Args:
        name: One of CLASSIFY_HEADS or SEGMENT_HEADS.
        stages: The stages whose feature maps it is given, shallow to deep.
        outputs: Classes, or channels of the mask logits.
        dropout: Share dropped in training, in [0, 1).

    Raises:
        ConfigError: Unknown name, a dropout out of range, or stages the head cannot use.
    """
    if not 0 <= dropout < 1:
        raise ConfigError(f"dropout is {dropout}; it must lie in [0, 1)")
    if name in POOLS:
        return Pooled(name, stages, outputs, dropout)
    if name == "deconv":
        return Deconv(stages, outputs, dropout)
    known = (*CLASSIFY_HEADS, *SEGMENT_HEADS)
    near = difflib.get_close_matches(name, known, n=1)
    raise ConfigError(
        f"there is no head '{name}'" + (f" (nearest: '{near[0]}')" if near else ""),
        f"for classify: {', '.join(CLASSIFY_HEADS)}; for segment: {', '.join(SEGMENT_HEADS)}",
    )
