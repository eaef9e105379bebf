"""Heads: what turns a backbone's feature maps into logits."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Protocol

from torch import Tensor, nn

from surgery.artifact.errors import ConfigError
from surgery.nets.heads.deconv import Deconv
from surgery.nets.heads.fpn import FeaturePyramid
from surgery.nets.heads.pooled import POOLS, Pooled
from surgery.nets.stages import StageInfo

CLASSIFY_HEADS = POOLS
SMP_HEADS = (
    "unet",
    "unetplusplus",
    "linknet",
    "manet",
    "smp-fpn",
    "pspnet",
    "deeplabv3",
    "deeplabv3plus",
    "pan",
    "upernet",
    "segformer",
)
SEGMENT_HEADS = ("deconv", "fpn", *SMP_HEADS)
DEFAULT_STAGES = 3


class Head(Protocol):
    """What every head is, beside being a torch module."""

    multiple: int
    """The deepest map's sides must be multiples of it; the model pads the image accordingly."""

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
        outputs: Classes, or channels of the mask logits; 0: the pooled features (classification).
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
    if name == "fpn":
        return FeaturePyramid(stages, outputs, dropout)
    if name in SMP_HEADS:
        from surgery.nets.heads.smp_decoder import SmpDecoder  # smp takes seconds to import

        return SmpDecoder(name, stages, outputs, dropout)
    known = (*CLASSIFY_HEADS, *SEGMENT_HEADS)
    near = difflib.get_close_matches(name, known, n=1)
    raise ConfigError(
        f"there is no head '{name}'" + (f" (nearest: '{near[0]}')" if near else ""),
        f"for classify: {', '.join(CLASSIFY_HEADS)}; for segment: {', '.join(SEGMENT_HEADS)}",
    )


def default_stages(name: str, stages: Sequence[StageInfo]) -> list[str]:
    """Return the names of the stages that a segmentation head uses unless told otherwise.

    Args:
        name: One of SEGMENT_HEADS.
        stages: The backbone's stages with rising strides, shallow to deep.
    """
    if name not in SMP_HEADS:
        return [stage.name for stage in stages[-DEFAULT_STAGES:]]
    from surgery.nets.heads.smp_decoder import default_strides

    wanted = default_strides(name, [stage.stride for stage in stages])
    return [stage.name for stage in stages if stage.stride in wanted]
