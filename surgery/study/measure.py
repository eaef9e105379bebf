"""Loss and mistakes of a set of weights on a sample."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from surgery.artifact.manifest import OutputSpec
from surgery.data.targets import ignored_target
from surgery.nets.assemble import Model
from surgery.study.sample import Held
from surgery.train.cut import Suffix
from surgery.train.losses import make_loss

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Measured:
    """What a set of weights makes of a sample.

    Attributes:
        loss: Mean cross-entropy over images, in nats; of masks over all pixels that count, so that an image
            weighs as much as it has of them.
        right: Which answers are right, of each image; of several labels each label of each image, of masks
            each pixel that counts.
    """

    loss: float
    right: Flags

    @property
    def error(self) -> float:
        """Share of wrong answers."""
        return float(1 - self.right.mean()) if self.right.size else 0.0


def measure(model: Model, held: Held) -> Measured:
    """Return loss and mistakes of the model's present weights.

    The answer is that of the image as it is, without its mirror image; masks are judged in the size of the
    network's input.
    """
    output = held.sample.targets.output
    loss, suffix = make_loss(output, name="ce"), Suffix(model, held.cut)
    total, right = 0.0, []
    with torch.inference_mode():
        for batch, inputs in zip(held.sample.batches, held.inputs, strict=True):
            logits = suffix(inputs, batch.size)
            right.append(find_right(logits, batch.targets, output))
            total += float(loss(logits, batch.targets)) * len(right[-1])
    flags = np.concatenate(right)
    return Measured(total / max(1, len(flags)), flags)


def find_right(logits: Tensor, targets: Tensor, output: OutputSpec) -> Flags:
    """Return which answers are right, as one row.

    Args:
        logits: (n, c), or (n, c, h, w) of masks.
        targets: (n,), (n, c) of several labels, or (n, h, w) with 255 where nobody looks.
        output: What the logits mean.
    """
    if output.multilabel:
        found, counts = (logits > 0) == (targets > 0), torch.ones_like(targets, dtype=torch.bool)
    else:
        single = logits.shape[1] == 1
        label = (logits[:, 0] > 0).long() if single else logits.argmax(1)  # (n, 1, h, w) -> (n, h, w)
        found, counts = label == targets, targets != ignored_target(output)
    flags: Flags = found[counts].cpu().numpy()
    return flags


def chance_loss(output: OutputSpec) -> float:
    """Return the loss of an answer that holds all classes for equally likely, in nats."""
    return math.log(2 if output.activation == "sigmoid" else len(output.classes))


def unit_of(output: OutputSpec) -> str:
    """Return what mistakes are counted in."""
    if output.mask_values:
        return "pixels"
    return "labels" if output.multilabel else "images"


def flatten(feature: Tensor) -> NDArray[np.float32]:
    """Return maps (n, c, h, w) as one row for each image, (n, c*h*w), as the field does for CKA."""
    flat: NDArray[np.float32] = feature.detach().float().flatten(1).cpu().numpy()  # (n, c, h, w) -> (n, chw)
    return flat
