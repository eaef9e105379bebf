"""A small network of eight layers for studies of transfer on small images, as one more model of timm."""

from __future__ import annotations

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

WIDTHS = (16, 32, 48, 48, 32, 128, 128)
"""Channels of the seven layers before the classifier."""


class YosinskiSmall(nn.Module):
    """Five convolutions, two hidden layers and a classifier: the eight layers of the paper at 32×32 pixels.

    Each of the seven layers before the classifier is a stage, so that the network can be cut behind each.
    The hidden layers are written as convolutions. Batch norm stands where the paper's network has local
    response normalisation and weeks of training.

    References:
        Yosinski et al. 2014, arXiv:1411.1792, section 3; Krizhevsky et al. 2012 (the network).
    """

    def __init__(self, num_classes: int = 10, in_chans: int = 3, **_: Any) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.num_features = WIDTHS[-1]
        self.layer1 = _layer(in_chans, WIDTHS[0], 5, stride=2)
        self.layer2 = _layer(WIDTHS[0], WIDTHS[1], 3, pooled=True)
        self.layer3 = _layer(WIDTHS[1], WIDTHS[2], 3)
        self.layer4 = _layer(WIDTHS[2], WIDTHS[3], 3)
        self.layer5 = _layer(WIDTHS[3], WIDTHS[4], 3, pooled=True)
        self.layer6 = _layer(WIDTHS[4], WIDTHS[5], 4, padded=False)  # 32 maps of 4×4 -> 128 units
        self.layer7 = _layer(WIDTHS[5], WIDTHS[6], 1)
        self.classifier = nn.Linear(WIDTHS[-1], num_classes) if num_classes else nn.Identity()
        strides = (2, 4, 4, 4, 8, 32, 32)
        self.feature_info = [
            {"num_chs": channels, "reduction": reduction, "module": f"layer{k}"}
            for k, (channels, reduction) in enumerate(zip(WIDTHS, strides, strict=True), start=1)
        ]

    def forward_features(self, x: Tensor) -> Tensor:
        """Map normalised images (n, 3, 32, 32) to (n, 128, 1, 1); larger images to larger maps."""
        for k in range(1, len(WIDTHS) + 1):
            x = self.get_submodule(f"layer{k}")(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images (n, 3, h, w), sides of 32 and more, to logits (n, classes)."""
        logits: Tensor = self.classifier(self.forward_features(x).mean(dim=(2, 3)))
        return logits


def _layer(
    channels: int, width: int, kernel: int, stride: int = 1, pooled: bool = False, padded: bool = True
) -> nn.Sequential:
    padding = kernel // 2 if padded else 0
    modules: list[nn.Module] = [
        nn.Conv2d(channels, width, kernel, stride, padding, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    ]
    return nn.Sequential(*modules, *([nn.MaxPool2d(2)] if pooled else []))


default_cfgs = generate_default_cfgs(
    {
        "yosinski_small": {
            "input_size": (3, 32, 32),
            "mean": (0.5, 0.5, 0.5),
            "std": (0.25, 0.25, 0.25),
            "num_classes": 10,
            "first_conv": "layer1.0",
            "classifier": "classifier",
        }
    }
)


@register_model  # type: ignore[untyped-decorator]
def yosinski_small(pretrained: bool = False, **kwargs: Any) -> YosinskiSmall:
    """Build the network; there are no weights for it."""
    model: YosinskiSmall = build_model_with_cfg(YosinskiSmall, "yosinski_small", pretrained, **kwargs)
    return model
