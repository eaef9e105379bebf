"""segmentation_models_pytorch's decoders on our backbones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from segmentation_models_pytorch.base.initialization import initialize_decoder
from segmentation_models_pytorch.decoders.deeplabv3.decoder import (
    DeepLabV3Decoder,
    DeepLabV3PlusDecoder,
)
from segmentation_models_pytorch.decoders.fpn.decoder import FPNDecoder
from segmentation_models_pytorch.decoders.linknet.decoder import LinknetDecoder
from segmentation_models_pytorch.decoders.manet.decoder import MAnetDecoder
from segmentation_models_pytorch.decoders.pan.decoder import PANDecoder
from segmentation_models_pytorch.decoders.pspnet.decoder import PSPDecoder
from segmentation_models_pytorch.decoders.segformer.decoder import SegformerDecoder
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder
from segmentation_models_pytorch.decoders.unetplusplus.decoder import UnetPlusPlusDecoder
from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder
from torch import Tensor, nn

from surgery.artifact.errors import ConfigError
from surgery.nets.heads.output import build_output
from surgery.nets.stages import StageInfo

UNET_WIDTHS = (256, 128, 64, 32, 16)
ATROUS_RATES = (12, 24, 36)
MAX_STRIDE = 32

Build = Callable[[list[int], int, float], nn.Module]


@dataclass(frozen=True)
class Decoder:
    """How one of smp's decoders is built and fed."""

    build: Build
    """Maps (channels of the maps it is fed, log2 of the deepest stride, dropout) to the decoder."""
    width: int
    """Channels that it gives out."""
    kernel: int
    """Side of the last convolution, as in smp."""
    reads: str
    """`all`: strides 2 to the deepest, gaps filled by maps without channels. `row`: stride 4 to the
    deepest without a gap. `four`: the deepest four without a gap. `any`: whatever stages there are.
    `deepest`: that one alone. `two`: stride 4 and the deepest."""
    drops_out: bool = False
    """It applies the dropout itself."""
    multiple: int = 1
    """The deepest map's sides must be multiples of it."""
    gaps: bool = True
    """For `all`: strides may be missing."""


DECODERS = {
    "unet": Decoder(lambda c, d, p: UnetDecoder(c, UNET_WIDTHS[-d:], n_blocks=d), UNET_WIDTHS[-1], 3, "all"),
    "unetplusplus": Decoder(
        lambda c, d, p: UnetPlusPlusDecoder(c, UNET_WIDTHS[-d:], n_blocks=d),
        UNET_WIDTHS[-1],
        3,
        "all",
        gaps=False,
    ),
    "linknet": Decoder(lambda c, d, p: LinknetDecoder(c, prefinal_channels=32, n_blocks=d), 32, 1, "all"),
    "manet": Decoder(
        lambda c, d, p: MAnetDecoder(c, UNET_WIDTHS[-d:], n_blocks=d), UNET_WIDTHS[-1], 3, "all"
    ),
    "smp-fpn": Decoder(
        lambda c, d, p: FPNDecoder(c, encoder_depth=d, dropout=p), 128, 1, "four", drops_out=True
    ),
    "pspnet": Decoder(lambda c, d, p: _pspnet(c, p), 512, 3, "deepest", drops_out=True),
    "deeplabv3": Decoder(
        lambda c, d, p: DeepLabV3Decoder(c[-1], 256, ATROUS_RATES, False, p),
        256,
        1,
        "deepest",
        drops_out=True,
    ),
    "deeplabv3plus": Decoder(lambda c, d, p: _deeplabv3plus(c, d, p), 256, 1, "two", drops_out=True),
    "pan": Decoder(lambda c, d, p: PANDecoder(c, d, 32), 32, 3, "row", multiple=8),
    "upernet": Decoder(lambda c, d, p: UPerNetDecoder(c, encoder_depth=d), 256, 1, "any"),
    "segformer": Decoder(lambda c, d, p: SegformerDecoder(c), 256, 1, "any"),
}


class SmpDecoder(nn.Module):
    """A decoder of smp, then one convolution to the outputs, enlarged to the image's size.

    Two things differ from smp's own models: the backbone is not dilated for DeepLab and PAN (they get the
    maps as they are; for the usual output stride of 16 leave the deepest stage out by `--stages`), and
    the enlarging at the end is bilinear without aligned corners.

    Args:
        name: One of DECODERS.
        stages: The stages used, shallow to deep.
        outputs: Output channels.
        dropout: Share of channels dropped, in the decoder where it has a place for it, else behind it.
    """

    def __init__(self, name: str, stages: Sequence[StageInfo], outputs: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.spec = DECODERS[name]
        self.multiple = self.spec.multiple
        self.strides = [stage.stride for stage in stages]
        _check(name, self.strides)
        depth = self.strides[-1].bit_length() - 1
        channels = {stage.stride: stage.channels for stage in stages}
        if self.spec.reads == "any":
            leading = [3, 0] if name == "upernet" else [3]
            fed = [*leading, *channels.values()]
        else:
            fed = [3, *(channels.get(2**k, 0) for k in range(1, depth + 1))]
        self.leading = len(fed) - len(stages) if self.spec.reads == "any" else 0
        self.depth = depth
        self.decoder = self.spec.build(fed, depth, dropout)
        initialize_decoder(self.decoder)
        _replace_pools(self.decoder)
        self.dropout = nn.Dropout2d(0.0 if self.spec.drops_out else dropout)
        self.output = build_output(self.spec.width, outputs, self.spec.kernel)

    def forward(self, features: list[Tensor], size: tuple[int, int]) -> Tensor:
        """Map features (n, c_i, H/s_i, W/s_i), shallow to deep, to logits (n, outputs, H, W)."""
        x: Tensor = self.decoder(self._fed(features, size))  # (n, width, H/s, W/s)
        x = self.output(self.dropout(x))  # -> (n, outputs, H/s, W/s)
        if self.spec.reads == "all":
            return x  # at full resolution already
        return F.interpolate(x, size=size, mode="bilinear", align_corners=False)

    def _fed(self, features: list[Tensor], size: tuple[int, int]) -> list[Tensor]:
        """The list that smp's encoders give: the image first, then strides 2, 4, …

        No decoder reads the image, only its size, so a map without channels stands for it.
        """
        n = features[0].shape[0]
        if self.spec.reads == "any":
            return [features[0].new_zeros(n, 0, *size)] * self.leading + features
        present = dict(zip(self.strides, features, strict=True))
        return [
            present[2**k]
            if k > 0 and 2**k in present
            else features[0].new_zeros(n, 0, size[0] // 2**k, size[1] // 2**k)
            for k in range(self.depth + 1)
        ]


def default_strides(name: str, strides: Sequence[int]) -> list[int]:
    """Return those of a backbone's strides that a decoder reads."""
    reads = DECODERS[name].reads
    above_one = [s for s in strides if s > 1]
    if reads == "deepest":
        return above_one[-1:]
    if reads == "four":
        return above_one[-4:]
    if reads == "two":
        return sorted({4, above_one[-1]} & set(strides))
    return above_one if reads == "all" else [s for s in above_one if s >= 4]


def _check(name: str, strides: list[int]) -> None:
    """Raise ConfigError where a decoder cannot use these strides."""
    spec, deepest = DECODERS[name], strides[-1]
    row = [2**k for k in range(1, deepest.bit_length())]
    needs = {
        "all": row,
        "row": [s for s in row if s >= 4],
        "four": row[-4:],
        "two": [4, deepest],
        "deepest": [deepest],
        "any": strides,
    }[spec.reads]
    if spec.reads == "all" and spec.gaps:
        needs = [deepest]
    least = {"all": 2, "four": 16, "row": 8, "two": 8}.get(spec.reads, 2)
    if deepest & (deepest - 1) or not least <= deepest <= MAX_STRIDE or set(needs) - set(strides):
        raise ConfigError(
            f"the {name} head needs stages of strides {', '.join(map(str, needs))}, the deepest from "
            f"{least} to {MAX_STRIDE}; given are {', '.join(map(str, strides))}",
            "choose other --stages, or --head deconv or fpn, which take any",
        )


def _deeplabv3plus(channels: list[int], depth: int, dropout: float) -> nn.Module:
    decoder: nn.Module = DeepLabV3PlusDecoder(
        channels,
        depth,
        256,
        ATROUS_RATES,
        output_stride=16,
        aspp_separable=True,
        aspp_dropout=dropout,
    )
    # smp enlarges by 4 at most, which fits a dilated encoder; ours may be deeper.
    decoder.up = nn.Upsample(scale_factor=2 ** (depth - 2), mode="bilinear", align_corners=True)
    return decoder


def _pspnet(channels: list[int], dropout: float) -> nn.Module:
    if channels[-1] % 4:
        raise ConfigError(
            f"the pspnet head needs a stage whose channels are a multiple of 4, not {channels[-1]}",
            "choose other --stages, or another head",
        )
    decoder: Any = PSPDecoder(channels, dropout=dropout)
    # smp's own block takes another way while it is exported, which fixes the size.
    decoder.psp.blocks = nn.ModuleList(PooledContext(block.pool) for block in decoder.psp.blocks)
    net: nn.Module = decoder
    return net


class PooledContext(nn.Module):
    """Pool, convolve and enlarge back: one block of PSPNet."""

    def __init__(self, pool: nn.Module) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, c', h, w)."""
        size = (x.shape[2], x.shape[3])
        return F.interpolate(self.pool(x), size=size, mode="bilinear", align_corners=True)


class GridPool(nn.Module):
    """Adaptive average pooling to a k×k grid, written so that one exported graph serves every size."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, c, k, k)."""
        rows = self._weights(x.shape[2], x)
        columns = self._weights(x.shape[3], x)
        return rows @ x @ columns.transpose(0, 1)  # (k, h) @ (n, c, h, w) @ (w, k)

    def _weights(self, length: int, like: Tensor) -> Tensor:
        """(k, length): row i averages the positions of cell i."""
        at = torch.arange(length, device=like.device)[None, :]
        cell = torch.arange(self.side, device=like.device)[:, None]
        start = cell * length // self.side
        stop = ((cell + 1) * length + self.side - 1) // self.side
        inside = ((at >= start) & (at < stop)).to(like.dtype)
        return inside / inside.sum(dim=1, keepdim=True)


def _replace_pools(net: nn.Module) -> None:
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if not isinstance(child, nn.AdaptiveAvgPool2d):
                continue
            size: Any = child.output_size
            side = int(size if isinstance(size, int) else size[0])
            if side != 1:
                parent.add_module(name, GridPool(side))
