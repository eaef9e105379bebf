"""Batches of a study: everything lies in memory, and what is frozen is computed once for a training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
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
from surgery.train.cache import ActivationCache, digest_modules, pack, to_half
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
        cache_gib: Bound of the cache on disk that holds the activations of images as they are on file, for
            other trainings with the same frozen part; 0: none.
    """

    model: Model
    cut: int
    pictures: Pictures
    augment: str
    seed: int
    device: torch.device
    cache_gib: float = 0.0
    plan: None = None
    input: InputSpec = field(init=False)
    targets: TargetSpec = field(init=False)

    def __post_init__(self) -> None:
        side = self.pictures.train.images.shape[1]
        self.input = InputSpec("crop", side, side, crop_share=1.0)
        classes = self.pictures.classes
        output = OutputSpec("softmax", classes, ())
        self.targets = TargetSpec("classify", output, tuple(range(len(classes))))
        self._items = {name: _list_items(held) for name, held in self._sides.items()}
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
            held, cache = self._sides[side], self._open_cache()
            records = {} if cache is None else {name: cache.get(name) for name in held.names}
            missing = [row for row, name in enumerate(held.names) if records.get(name) is None]
            step = max(1, AT_ONCE // (held.images.shape[1] * held.images.shape[2]))
            parts: dict[int, dict[str, Tensor]] = {}
            for rows in (missing[k : k + step] for k in range(0, len(missing), step)):
                found = {key: to_half(value) for key, value in self._encode(held.images[rows]).items()}
                for i, row in enumerate(rows):
                    parts[row] = {key: value[i] for key, value in found.items()}  # (c, h, w) each
                    if cache is not None:
                        cache.put(held.names[row], {key: pack(value[i]) for key, value in found.items()})
            for row, name in enumerate(held.names):
                record = records.get(name)
                if record is not None:
                    parts[row] = {key: value.movedim(-1, 0) for key, value in record.items()}
            self._kept[side] = {
                key: torch.stack([parts[row][key].to(self.device) for row in range(len(held))]).contiguous(
                    memory_format=torch.channels_last
                )  # (c, h, w) each -> (n, c, h, w)
                for key in parts[0]
            }
            if cache is not None:
                cache.close()
        return self._kept[side]

    def _open_cache(self) -> ActivationCache | None:
        if not self.cache_gib:
            return None
        key = {
            "format": "study-1",
            "frozen": digest_modules(list(self.model.backbone.stages[: self.cut])),
            "backbone": self.model.backbone.name,
            "cut": self.cut,
            "head_stages": list(self.model.head_stages),
            "libraries": [version(name) for name in ("torch", "timm", "pillow")],
            "side": self.input.width,
            "device": self.device.type,
        }
        return ActivationCache(key, self.cache_gib)

    @torch.no_grad()
    def _encode(self, images: np.ndarray) -> dict[str, Tensor]:
        found = encode_prefix(self.model, torch.from_numpy(images).to(self.device), self.cut)
        if self.cut <= max(self.model.head_stages):
            return found
        # The head pools by the mean: of all positions, or of the one that is left, it is the same.
        return {key: value.mean(dim=(2, 3), keepdim=True) for key, value in found.items()}


def _list_items(held: Side) -> list[Item]:
    pairs = zip(held.names, held.labels, strict=True)
    return [Item(Path(name), int(label), None, "train") for name, label in pairs]
