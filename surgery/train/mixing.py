"""Mixup and CutMix of one batch, whether it holds images or activations of frozen layers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from surgery.train.feed import Batch
from surgery.train.losses import Loss


def mix(
    batch: Batch, mixup: float, cutmix: float, seed: tuple[int, ...], channels_last: bool = False
) -> tuple[Batch, Tensor, float]:
    """Mix each example of a batch with another one.

    Activations of frozen layers are mixed as images are: Mixup of them is manifold mixup at the cut, CutMix
    pastes the same part of the picture into every map.

    Args:
        batch: Of labelled images.
        mixup: Mixup's alpha; 0 turns it off.
        cutmix: CutMix's alpha; 0 turns it off. With both, each batch gets one of them at random.
        seed: Decides everything.
        channels_last: The state behind the frozen layers is (n, h, w, c), as that of a Swin is.

    Returns:
        The batch with mixed inputs; the targets of the others; the share of the example's own target.

    References:
        Zhang et al. 2018, arXiv:1710.09412; Yun et al. 2019, arXiv:1905.04899; Verma et al. 2019,
        arXiv:1806.05236 (activations).
    """
    rng = np.random.default_rng(seed)
    pasted = cutmix > 0 and (mixup <= 0 or rng.random() < 0.5)
    alpha = cutmix if pasted else mixup
    share = float(rng.beta(alpha, alpha))
    device = batch.targets.device
    others = torch.from_numpy(rng.permutation(len(batch.items))).to(device)
    if pasted:
        inputs, share = _paste(batch.inputs, others, share, rng, channels_last)
    else:
        inputs = {
            name: share * value.float() + (1 - share) * value[others].float()
            for name, value in batch.inputs.items()
        }
    return replace(batch, inputs=inputs), batch.targets[others], share


def mixed_loss(loss: Loss, logits: Tensor, targets: Tensor, others: Tensor, share: float) -> Tensor:
    """Return the loss against both targets, weighted by their shares."""
    return share * loss(logits, targets) + (1 - share) * loss(logits, others)


def _paste(
    inputs: dict[str, Tensor], others: Tensor, share: float, rng: np.random.Generator, channels_last: bool
) -> tuple[dict[str, Tensor], float]:
    """Paste a box of the others; the box falls between the cells of the coarsest map."""
    last = {"images", "state"} if channels_last else {"images"}  # (n, h, w, c); the others are (n, c, h, w)
    sides = {n: value.shape[1:3] if n in last else value.shape[2:4] for n, value in inputs.items()}
    rows, columns = min(sides.values())
    side = np.sqrt(1 - share)
    box = []
    for cells in (rows, columns):
        length = int(np.rint(cells * side))
        start = int(rng.integers(0, cells - length + 1))
        box += [start / cells, (start + length) / cells]
    pasted = {}
    for name, value in inputs.items():
        height, width = sides[name]
        top, bottom = round(box[0] * height), round(box[1] * height)
        left, right = round(box[2] * width), round(box[3] * width)
        mixed = value.clone()
        if name in last:
            mixed[:, top:bottom, left:right] = value[others, top:bottom, left:right]
        else:
            mixed[:, :, top:bottom, left:right] = value[others][:, :, top:bottom, left:right]
        pasted[name] = mixed
    return pasted, 1 - (box[1] - box[0]) * (box[3] - box[2])
