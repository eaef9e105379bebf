"""What a network sees of a batch: its answers, and the features that two domains are compared by."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from surgery.artifact.manifest import OutputSpec
from surgery.train.feed import Batch

WHOLE = 4096
"""A map of labels with no more values is compared as it is; a larger one is averaged over its positions."""


@dataclass(frozen=True)
class Seen:
    """A batch of one domain, on its way through the network.

    Attributes:
        logits: (n, c), or (n, c, h, w) of masks.
        rows: Features, (m, d), of length √d each: one row an image, or of masks one a position.
        shares: Probabilities of the classes where the rows are, (m, k).
    """

    logits: Tensor
    rows: Tensor
    shares: Tensor


def see(suffix: nn.Module, batch: Batch, output: OutputSpec) -> Seen:
    """Run a tapped suffix on a batch."""
    logits, tapped = suffix(batch.inputs, batch.size)
    shares = probabilities(logits, output)
    if logits.ndim == 4:
        shares = to_positions(F.adaptive_avg_pool2d(shares, tapped.shape[2:]))
    return Seen(logits, to_rows(tapped, logits.ndim == 4), shares)


def probabilities(logits: Tensor, output: OutputSpec) -> Tensor:
    """Return the probabilities of all classes, (n, k) or (n, k, h, w); they add up to 1."""
    if output.activation == "softmax":
        return F.softmax(logits.float(), dim=1)
    one = torch.sigmoid(logits.float())  # (n, 1, h, w): the class against the rest
    return torch.cat([1 - one, one], dim=1)


def to_rows(tapped: Tensor, masks: bool) -> Tensor:
    """Return a map (n, d, h, w) as rows: of masks (n·h·w, d), else (n, d·h·w), or (n, d) of a large map.

    Each row is brought to the length √d, as the pooled heads do it: activations of one network are a
    hundred times those of another.
    """
    if masks:
        rows = to_positions(tapped)
    elif tapped[0].numel() <= WHOLE:
        rows = tapped.flatten(1)  # (n, d, h, w) -> (n, d·h·w)
    else:
        rows = tapped.mean(dim=(2, 3))  # (n, d, h, w) -> (n, d)
    length: float = rows.shape[1] ** 0.5
    return F.normalize(rows.float()) * length


def to_positions(maps: Tensor) -> Tensor:
    """(n, d, h, w) -> (n·h·w, d)."""
    return maps.permute(0, 2, 3, 1).flatten(0, 2)


def entropy(shares: Tensor, dim: int = 1) -> Tensor:
    """Return the entropy of probabilities along a dimension, in nats."""
    return -(shares * shares.clamp(min=1e-12).log()).sum(dim)
