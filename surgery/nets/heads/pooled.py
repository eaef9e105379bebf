"""Classification by pooling: each used stage to one vector of fixed length, then one linear layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from surgery.nets.stages import StageInfo

POOLS = ("avg", "max", "avgmax", "gem")
GEM_EPSILON = 1e-6


class Pooled(nn.Module):
    """Pool over positions, bring each vector to one length, join them, drop out, map to the classes.

    Activations of VGG16 are a hundred times those of an EfficientNet. Each pooled vector of d values is
    scaled to the length √d, so that one learning rate serves every backbone and stage.

    Args:
        pool: `avg`, `max`, `avgmax` (both, joined) or `gem` (generalised mean, power learnt).
        stages: The stages used.
        outputs: Number of classes; 0: the joined vectors themselves are the answer, for a classifier that is
            no network.
        dropout: Share of pooled values dropped in training.

    References:
        Radenović et al. 2018, arXiv:1711.02512, eq. 3 (gem) and section 3.2 (vectors of one length).
    """

    multiple = 1

    def __init__(self, pool: str, stages: Sequence[StageInfo], outputs: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.pool = pool
        width = sum(stage.channels for stage in stages) * (2 if pool == "avgmax" else 1)
        if pool == "gem":
            self.power = nn.Parameter(torch.full((len(stages),), 3.0))
        self.dropout = nn.Dropout(dropout)
        self.linear: nn.Module = nn.Identity()
        if outputs:
            self.linear = nn.Linear(width, outputs)
            nn.init.normal_(self.linear.weight, std=0.01)
            nn.init.zeros_(self.linear.bias)

    def forward(self, features: list[Tensor], size: tuple[int, int]) -> Tensor:
        """Map features (n, c_i, h_i, w_i) to logits (n, outputs), or to the joined vectors (n, d)."""
        pooled = [piece for k, feature in enumerate(features) for piece in self._pool(feature, k)]
        pooled = [F.normalize(x) * x.shape[1] ** 0.5 for x in pooled]  # (n, d) each
        logits: Tensor = self.linear(self.dropout(torch.cat(pooled, dim=1)))
        return logits

    def _pool(self, x: Tensor, k: int) -> list[Tensor]:
        """(n, c, h, w) -> (n, c), for avgmax two of them."""
        if self.pool == "gem":
            power = self.power[k]
            return [x.clamp(min=GEM_EPSILON).pow(power).mean(dim=(2, 3)).pow(1 / power)]
        average, largest = x.mean(dim=(2, 3)), x.amax(dim=(2, 3))
        return {"avg": [average], "max": [largest], "avgmax": [average, largest]}[self.pool]
