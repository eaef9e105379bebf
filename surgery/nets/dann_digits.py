"""The small network of the domain-adversarial paper, for digits of 28×28, as one more model of timm."""

from __future__ import annotations

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

WIDTH = 100
"""Units of each of the two hidden layers of the label predictor."""


class DannDigits(nn.Module):
    """Two convolutions and the two hidden layers behind them; as a backbone with the head `avg`, all of it.

    The feature extractor of the paper is the first two stages, 48 maps of 4×4, where its domain classifier
    sees them. The fully connected layers are written as convolutions, so that they are stages too.

    References:
        Ganin & Lempitsky 2015, arXiv:1409.7495, figure 4a.
    """

    def __init__(self, num_classes: int = 10, in_chans: int = 3, **_: Any) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.num_features = WIDTH
        self.stage1 = nn.Sequential(nn.Conv2d(in_chans, 32, 5), nn.MaxPool2d(2), nn.ReLU())
        self.stage2 = nn.Sequential(nn.Conv2d(32, 48, 5), nn.MaxPool2d(2), nn.ReLU())
        self.stage3 = nn.Sequential(nn.Conv2d(48, WIDTH, 4), nn.ReLU())  # 48 maps of 4×4 -> 100 units
        self.stage4 = nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 1), nn.ReLU())
        self.classifier = nn.Linear(WIDTH, num_classes) if num_classes else nn.Identity()
        self.feature_info = [
            {"num_chs": channels, "reduction": reduction, "module": f"stage{k}"}
            for k, (channels, reduction) in enumerate([(32, 2), (48, 7), (WIDTH, 28), (WIDTH, 28)], start=1)
        ]

    def forward_features(self, x: Tensor) -> Tensor:
        """Map normalised images (n, 3, 28, 28) to (n, 100, 1, 1)."""
        features: Tensor = self.stage4(self.stage3(self.stage2(self.stage1(x))))
        return features

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images (n, 3, 28, 28) to logits (n, classes)."""
        logits: Tensor = self.classifier(self.forward_features(x).flatten(1))  # (n, 100, 1, 1) -> (n, 100)
        return logits


default_cfgs = generate_default_cfgs(
    {
        "dann_digits": {
            "input_size": (3, 28, 28),
            "fixed_input_size": True,
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "num_classes": 10,
            "first_conv": "stage1.0",
            "classifier": "classifier",
        }
    }
)


@register_model  # type: ignore[untyped-decorator]
def dann_digits(pretrained: bool = False, **kwargs: Any) -> DannDigits:
    """Build the network; there are no weights for it."""
    model: DannDigits = build_model_with_cfg(DannDigits, "dann_digits", pretrained, **kwargs)
    return model
