"""Classification by pooling: each used stage to one vector, then one linear layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from surgery.nets.stages import StageInfo

POOLS = ("avg", "max", "avgmax", "gem")
GEM_EPSILON = 1e-6


class Pooled(nn.Module):
    """Pool over positions, join the stages' vectors, drop out, map to the classes.

    Args:
        pool: `avg`, `max`, `avgmax` (both, joined) or `gem` (generalised mean, power learnt).
        stages: The stages used.
        outputs: Number of classes.
        dropout: Share of pooled values dropped in training.

    References:
        Radenović et al. 2018, arXiv:1711.02512, eq. 3 (gem).
    """

    multiple = 1

    def __init__(self, pool: str, stages: Sequence[StageInfo], outputs: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.pool = pool
        width = sum(stage.channels for stage in stages) * (2 if pool == "avgmax" else 1)
        if pool == "gem":
            self.power = nn.Parameter(torch.full((len(stages),), 3.0))
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width, outputs)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: list[Tensor], size: tuple[int, int]) -> Tensor:
        """Map features (n, c_i, h_i, w_i) to logits (n, outputs); the image size is not needed."""
        pooled = [self._pool(feature, k) for k, feature in enumerate(features)]
        return self.linear(self.dropout(torch.cat(pooled, dim=1)))

    def _pool(self, x: Tensor, k: int) -> Tensor:
        """(n, c, h, w) -> (n, c), for avgmax (n, 2c)."""
        if self.pool == "avg":
            return x.mean(dim=(2, 3))
        if self.pool == "max":
            return x.amax(dim=(2, 3))
        if self.pool == "avgmax":
            return torch.cat([x.mean(dim=(2, 3)), x.amax(dim=(2, 3))], dim=1)
        power = self.power[k]
        return x.clamp(min=GEM_EPSILON).pow(power).mean(dim=(2, 3)).pow(1 / power)
