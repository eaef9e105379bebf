"""Batches of a study: everything lies in memory, and what is frozen is computed once for a training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from surgery.artifact.manifest import InputSpec, OutputSpec
from surgery.data.loaders import batches
from surgery.data.table import Item
from surgery.data.targets import TargetSpec
from surgery.data.transforms import make_view, view_seed
from surgery.nets.assemble import Model
from surgery.study.pictures import Pictures, Side
from surgery.train.cache import to_half
from surgery.train.cut import encode_prefix
from surgery.train.feed import Batch

AT_ONCE = 128 * 64 * 64
"""Pixels per forward pass of the frozen part."""


@dataclass
class MemoryFeed:
    """Where the batches of a study's training come from; the loop takes it for a feed of files.

    Args:
        model: The model; its stages before `cut` do not change.
        cut: First stage that learns.
        pictures: The images.
        augment: `none`, or a preset: then a new view every epoch, and the frozen part is run every time.
        seed: Of order and augmentation.
        device: Where the model lies.
    """

    model: Model
    cut: int
    pictures: Pictures
    augment: str
    seed: int
    device: torch.device
    plan: None = None
    input: InputSpec = field(init=False)
    targets: TargetSpec = field(init=False)

    def __post_init__(self) -> None:
        side = self.pictures.train.images.shape[1]
        self.input = InputSpec("crop", side, side, crop_share=1.0)
        classes = self.pictures.classes
        output = OutputSpec("softmax", classes, ())
        self.targets = TargetSpec("classify", output, tuple(range(len(classes))))
        self._items = {
            name: [Item(Path(each), int(label), None, "train") for each, label in zip(s.names, s.labels, strict=True)]
            for name, s in self._sides.items()
        }
        self._view = make_view(self.input, self.augment)
        self._kept: dict[str, dict[str, Tensor]] = {}

    @property
    def _sides(self) -> dict[str, Side]:
        return {"train": self.pictures.train, "judged": self.pictures.judged}

    @property
    def parts(self) -> tuple[MemoryFeed, ...]:
        """The feeds that it is made of: none has a cache on disk."""
        return (self,)

    def order(self, epoch: int, batch_size: int) -> list[list[int]]:
        """Return the training images of each step of an epoch, as indices."""
        return batches(len(self.pictures.train), batch_size, self.seed, epoch)

    def epoch(self, epoch: int, batch_size: int, start: int = 0) -> Iterator[Batch]:
        """Yield the training batches of an epoch from step `start` on."""
        for rows in self.order(epoch, batch_size)[start:]:
            if self.augment == "none":
                yield self._batch("train", rows)
            else:
                yield self._augmented(rows, epoch)

    def validation(self, batch_size: int) -> Iterator[tuple[Batch, list[Any]]]:
        """Yield the judged images in their order, each batch with its labels."""
        yield from self.look("judged", batch_size)

    def look(self, side: str, batch_size: int) -> Iterator[tuple[Batch, list[Any]]]:
        """Yield the images of a side, plain and in their order; the last batch may be smaller."""
        for rows in batches(len(self._sides[side]), batch_size, shuffle=False):
            yield self._batch(side, rows), [self._items[side][row].label for row in rows]

    def close(self) -> None:
        """Let go of the activations."""
        self._kept.clear()

    def _batch(self, side: str, rows: list[int]) -> Batch:
        held = self._sides[side]
        targets = torch.from_numpy(held.labels[rows]).to(self.device)
        size = (held.images.shape[1], held.images.shape[2])
        if self.cut == 0:
            inputs = {"images": torch.from_numpy(held.images[rows]).to(self.device)}  # (n, h, w, 3)
        else:
            inputs = {key: value[rows].float() for key, value in self._frozen(side).items()}
        return Batch([self._items[side][row] for row in rows], inputs, targets, size)

    def _augmented(self, rows: list[int], epoch: int) -> Batch:
        held = self.pictures.train
        seeds = [view_seed(self.seed, held.names[row], epoch + 1) for row in rows]
        views = [
            self._view(held.images[row], None, seed, self.augment == "flip" and seed % 2 == 0)[0]
            for row, seed in zip(rows, seeds, strict=True)
        ]
        images = np.stack(views)  # (h, w, 3) each -> (n, h, w, 3)
        inputs = {"images": torch.from_numpy(images).to(self.device)}
        if self.cut:
            inputs = {key: to_half(value).float() for key, value in self._encode(images).items()}
        targets = torch.from_numpy(held.labels[rows]).to(self.device)
        return Batch([self._items["train"][row] for row in rows], inputs, targets, images.shape[1:3])

    def _frozen(self, side: str) -> dict[str, Tensor]:
        """Return the activations of a side, (n, c, h, w) half floats and channels last."""
        if side not in self._kept:
            images = self._sides[side].images
            step = max(1, AT_ONCE // (images.shape[1] * images.shape[2]))
            parts = [
                {key: to_half(value) for key, value in self._encode(images[k : k + step]).items()}
                for k in range(0, len(images), step)
            ]
            self._kept[side] = {
                key: torch.cat([part[key] for part in parts]).to(memory_format=torch.channels_last)
                for key in parts[0]
            }
        return self._kept[side]

    @torch.no_grad()
    def _encode(self, images: np.ndarray) -> dict[str, Tensor]:
        return encode_prefix(self.model, torch.from_numpy(images).to(self.device), self.cut)
