"""Losses: cross-entropy or focal for labels; for masks these, Dice and Lovász, alone or added up."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from torch import Tensor

from surgery.artifact.manifest import OutputSpec
from surgery.data.targets import IGNORE, ignored_target

Loss = Callable[[Tensor, Tensor], Tensor]
DEFAULT_LOSS = {"classify": "ce", "segment": "ce+dice"}
FOCUS = 2.0
"""The focal loss's gamma."""


def make_loss(
    output: OutputSpec,
    label_smoothing: float = 0.0,
    name: str | None = None,
    weights: Sequence[float] | None = None,
) -> Loss:
    """Return a function of logits and targets to a scalar.

    Args:
        output: What the logits mean.
        label_smoothing: Share of the target spread over all classes (labels).
        name: `ce` or `focal`; for masks also `dice` and `lovasz`, and sums such as `ce+lovasz`. None is
            cross-entropy for labels and `ce+dice` for masks.
        weights: How much each class counts in `ce` and `focal`, in the order of `output.classes`; of a
            sigmoid one number per logit, how much presence counts against absence.

    Returns:
        Of logits (n, c) and targets (n,), or (n, c) of 0 and 1 where an image may have several labels; of
        logits (n, c, h, w) and targets (n, h, w), where targets of 255 count in no part;
        a label of `NO_LABEL` counts in none either.

    References:
        Lin et al. 2017, arXiv:1708.02002, eq. 4 (focal); Milletari et al. 2016, arXiv:1606.04797, eq. 3
        (Dice); Berman et al. 2018, arXiv:1705.08790 (Lovász); Szegedy et al. 2016, arXiv:1512.00567,
        section 7 (label smoothing).
    """
    masks = bool(output.mask_values)
    mode = "binary" if output.logits == 1 else "multiclass"
    region = {"dice": smp.losses.DiceLoss, "lovasz": smp.losses.LovaszLoss}
    elements = _sigmoid_elements if output.activation == "sigmoid" else _softmax_elements
    parts: list[Loss] = []
    for part in (name or DEFAULT_LOSS["segment" if masks else "classify"]).split("+"):
        if part in region:
            parts.append(_of_regions(region[part](mode, ignore_index=IGNORE), mode))
        else:
            given = None if weights is None else torch.tensor(weights, dtype=torch.float32)
            focus = FOCUS if part == "focal" else 0.0
            parts.append(elements(ignored_target(output), label_smoothing, given, focus))

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        return torch.stack([part(logits.float(), targets) for part in parts]).sum()

    return loss


def _softmax_elements(ignored: int, smoothing: float, weights: Tensor | None, focus: float) -> Loss:
    """Return the mean over labels or pixels, each weighted by its true class."""

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        weight = (targets != ignored).to(logits.dtype)
        if weights is not None:
            weight = weight * weights.to(logits.device)[targets.clamp(0, len(weights) - 1)]
        each = F.cross_entropy(
            logits, targets, ignore_index=ignored, reduction="none", label_smoothing=smoothing
        )
        if focus:
            sure = F.cross_entropy(logits, targets, ignore_index=ignored, reduction="none")
            each = each * (1 - torch.exp(-sure)) ** focus
        return (each * weight).sum() / weight.sum().clamp(min=1e-6)

    return loss


def _sigmoid_elements(ignored: int, smoothing: float, weights: Tensor | None, focus: float) -> Loss:
    """Return the mean over labels or pixels; weights multiply what is present."""

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        if logits.ndim == 4:
            logits = logits[:, 0]  # (n, 1, h, w) -> (n, h, w)
        valid = (targets != ignored).to(logits.dtype)
        wanted = targets.clamp(0, 1).to(logits.dtype)
        smooth = wanted * (1 - smoothing) + smoothing / 2
        scale = None if weights is None else weights.to(logits.device)
        each = F.binary_cross_entropy_with_logits(logits, smooth, reduction="none", pos_weight=scale)
        if focus:
            sure = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
            each = each * (1 - torch.exp(-sure)) ** focus
        return (each * valid).sum() / valid.sum().clamp(min=1)

    return loss


def _of_regions(measure: Loss, mode: str) -> Loss:
    """Return a loss over whole regions; a batch without a pixel that counts costs nothing."""

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        if not (targets != IGNORE).any():
            return logits.sum() * 0.0
        if mode == "binary":
            targets = targets[:, None]  # (n, h, w) -> (n, 1, h, w)
        return measure(logits, targets)

    return loss
