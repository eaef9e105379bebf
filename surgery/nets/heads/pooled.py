"""Classification by pooling: each used stage to one vector of fixed length, then one linear layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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

    @property
    def explains(self) -> bool:
        """Whether there are classes whose evidence could be laid out over the positions."""
        return isinstance(self.linear, nn.Linear)

    def explain(self, features: list[Tensor]) -> Tensor:
        """Lay the evidence for each class out over the positions: the class activation map.

        Each pooled value is spread over the positions that it came from, and the linear layer is applied at
        each. So the mean of the map over its positions plus the layer's bias is the logits, for every pool.

        Args:
            features: Maps (n, c_i, h_i, w_i), shallow to deep.

        Returns:
            (n, outputs, h, w), in the size of the deepest map.

        References:
            Zhou et al. 2016, arXiv:1512.04150, eq. 2 (avg); the other pools by the same argument.
        """
        size = (features[-1].shape[2], features[-1].shape[3])
        pairs = [pair for k, x in enumerate(features) for pair in self._spread(x, k)]
        widths = [spread.shape[1] for spread, _ in pairs]
        linear: Any = self.linear
        weights = linear.weight.split(widths, dim=1)  # (outputs, d) each
        maps = []
        for (spread, pooled), weight in zip(pairs, weights, strict=True):
            length = pooled.norm(dim=1).clamp(min=1e-12) / pooled.shape[1] ** 0.5  # (n,), as in forward
            evidence = F.conv2d(
                spread, weight[:, :, None, None]
            )  # (n, d, h_i, w_i) -> (n, outputs, h_i, w_i)
            maps.append(_resample(evidence / length[:, None, None, None], size))
        return torch.stack(maps).sum(0)

    def _spread(self, x: Tensor, k: int) -> list[tuple[Tensor, Tensor]]:
        """Return for each pooled vector what each position gave to it, and the vector, their mean.

        (n, c, h, w) -> (n, c, h, w) and (n, c), for avgmax two of them.
        """
        pooled = self._pool(x, k)
        if self.pool == "gem":
            powers = x.clamp(min=GEM_EPSILON).pow(self.power[k])
            return [(powers * (pooled[0] / powers.mean(dim=(2, 3)))[:, :, None, None], pooled[0])]
        found = [(x, pooled[0])] if self.pool != "max" else []
        if self.pool != "avg":
            largest = pooled[-1]
            at = (x == largest[:, :, None, None]).to(x.dtype)  # positions that tie share it
            found.append((at * (largest / at.mean(dim=(2, 3)))[:, :, None, None], largest))
        return found

    def _pool(self, x: Tensor, k: int) -> list[Tensor]:
        """(n, c, h, w) -> (n, c), for avgmax two of them."""
        if self.pool == "gem":
            power = self.power[k]
            return [x.clamp(min=GEM_EPSILON).pow(power).mean(dim=(2, 3)).pow(1 / power)]
        average, largest = x.mean(dim=(2, 3)), x.amax(dim=(2, 3))
        return {"avg": [average], "max": [largest], "avgmax": [average, largest]}[self.pool]


def _resample(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resample by area, (n, c, h, w) -> (n, c, *size), so that the mean over the positions stays."""
    if (x.shape[2], x.shape[3]) == size:
        return x
    rows, columns = (_overlaps(have, want) for have, want in zip(x.shape[2:], size, strict=True))
    return rows.to(x) @ x @ columns.to(x).T


def _overlaps(have: int, want: int) -> Tensor:
    """Return the share that each of `want` cells on a line has of each of `have`, (want, have)."""
    edges, others = torch.arange(want + 1) / want, torch.arange(have + 1) / have
    low = torch.maximum(edges[:-1, None], others[None, :-1])
    high = torch.minimum(edges[1:, None], others[None, 1:])
    return (high - low).clamp(min=0) * want
