"""Losses: cross-entropy for classes, cross-entropy plus Dice for masks."""

from __future__ import annotations

from collections.abc import Callable

import segmentation_models_pytorch as smp
import torch.nn.functional as F
from torch import Tensor, nn

from surgery.artifact.manifest import OutputSpec
from surgery.data.targets import IGNORE

Loss = Callable[[Tensor, Tensor], Tensor]


def make_loss(output: OutputSpec, label_smoothing: float) -> Loss:
    """Return the loss of a task, a function of logits and targets to a scalar.

    Args:
        output: What the logits mean.
        label_smoothing: Share of the target spread over all classes (classification).

    Returns:
        For classes, cross-entropy of logits (n, c) and targets (n,); where an image may have several,
        binary cross-entropy of logits (n, c) and targets (n, c) of 0 and 1. For masks, (binary)
        cross-entropy plus Dice over the batch, of logits (n, c, h, w) and targets (n, h, w), where
        targets of 255 count in neither.

    References:
        Milletari et al. 2016, arXiv:1606.04797, eq. 3 (Dice); Szegedy et al. 2016,
        arXiv:1512.00567, section 7 (label smoothing).
    """
    if not output.mask_values:
        return (
            _labels_loss(label_smoothing)
            if output.multilabel
            else nn.CrossEntropyLoss(label_smoothing=label_smoothing)
        )
    outputs = output.logits
    mode = "binary" if outputs == 1 else "multiclass"
    dice: Loss = smp.losses.DiceLoss(mode, from_logits=True, ignore_index=IGNORE)

    def masks_loss(logits: Tensor, targets: Tensor) -> Tensor:
        valid = targets != IGNORE  # (n, h, w)
        if outputs == 1:
            wanted = targets.clamp(max=1).to(logits.dtype)
            cross = F.binary_cross_entropy_with_logits(logits[:, 0], wanted, reduction="none")
            targets = targets[:, None]  # (n, h, w) -> (n, 1, h, w)
        else:
            cross = F.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="none")
        mean = (cross * valid).sum() / valid.sum().clamp(min=1)
        return mean + dice(logits, targets)

    return masks_loss


def _labels_loss(smoothing: float) -> Loss:
    def labels_loss(logits: Tensor, targets: Tensor) -> Tensor:
        wanted = targets.to(logits.dtype) * (1 - smoothing) + smoothing / 2
        return F.binary_cross_entropy_with_logits(logits, wanted)

    return labels_loss
