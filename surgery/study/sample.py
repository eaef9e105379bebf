"""The images of a study: a bounded, seeded choice, held in memory as the network takes them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from surgery.artifact.errors import DataError
from surgery.artifact.manifest import InputSpec
from surgery.data.table import Table
from surgery.data.targets import TargetSpec
from surgery.nets.assemble import Model
from surgery.train.cut import encode_prefix
from surgery.train.feed import Batch, Feed

BATCH = 32
"""Images of a minibatch."""
HELD_BYTES = 1 << 30
"""Activations that are held in memory at most."""


@dataclass(frozen=True)
class Sample:
    """Some labelled images, each as the service would see it."""

    split: str
    """The side that they are of."""
    images: int
    batches: tuple[Batch, ...]
    """In a fixed order, images of one size in each; `inputs` are the images themselves."""
    digest: str
    """Of what they are and how they are labelled, so that others get other results."""
    targets: TargetSpec


@dataclass(frozen=True)
class Held:
    """A sample behind the first stages of a network, which are run once and not for every set of weights."""

    sample: Sample
    cut: int
    """First stage that is run each time."""
    inputs: tuple[dict[str, Tensor], ...]
    """What the rest of the network takes, for each batch (see `Batch`)."""


def draw_sample(
    model: Model,
    table: Table,
    targets: TargetSpec,
    spec: InputSpec,
    split: str,
    most: int,
    seed: int,
    device: torch.device,
    batch_size: int = BATCH,
) -> Sample:
    """Read a sample of one side of the data.

    Args:
        model: Whose input the images become.
        table: The data.
        targets: Which classes count.
        spec: How an image becomes the network's input.
        split: `train`, `val` or `test`.
        most: Images at most; which of more is the seed's to say.
        seed: Of the choice.
        device: Where the batches lie.
        batch_size: Images of a minibatch.

    Raises:
        DataError: If there is no image on that side.
    """
    items = table.of(split)
    if not items:
        raise DataError(f"{table.root}: there is no image in split {split!r}", "Give data with that split.")
    if len(items) > most:
        chosen = np.random.default_rng(seed).choice(len(items), most, replace=False)
        items = [items[i] for i in sorted(chosen.tolist())]
    part = replace(table, items=tuple(replace(item, split="val") for item in items))
    feed = Feed(model, 0, part, spec, targets, "none", 1, seed, device, workers=2, cache_gib=0)
    batches = tuple(batch for batch, _ in feed.validation(batch_size))
    known = [part.fingerprint(), spec.__dict__, targets.describe(), split, batch_size]
    digest = hashlib.sha256(json.dumps(known, default=str).encode()).hexdigest()
    return Sample(split, len(items), batches, digest, targets)


def hold(model: Model, sample: Sample, cut: int, bound_bytes: int = HELD_BYTES) -> Held:
    """Run the stages before `cut` once; where their results would take too much memory, fewer of them.

    Args:
        model: With weights whose stages before `cut` are what all others have.
        sample: The images.
        cut: First stage that is run each time.
        bound_bytes: Bound on what is held.
    """
    while cut > 0 and _held_bytes(model, sample, cut) > bound_bytes:
        cut -= 1
    if cut == 0:
        return Held(sample, 0, tuple(batch.inputs for batch in sample.batches))
    with torch.no_grad():
        held = tuple(encode_prefix(model, batch.inputs["images"], cut) for batch in sample.batches)
    return Held(sample, cut, held)


def _held_bytes(model: Model, sample: Sample, cut: int) -> int:
    """Return the bytes of a held sample, reckoned from its first batch."""
    first = sample.batches[0]
    with torch.no_grad():
        encoded = encode_prefix(model, first.inputs["images"][:1], cut)
    return sample.images * sum(value.numel() * value.element_size() for value in encoded.values())
