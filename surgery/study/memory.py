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
from surgery.train.cache import ActivationCache, Record, digest_modules, pack, to_half
from surgery.train.cut import encode_prefix, prefix_names
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
        """The feeds that it is made of, for what the loop asks of each: itself alone."""
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
            parts = self._compute(side)
            self._kept[side] = {
                key: torch.stack([part[key].to(self.device) for part in parts]).contiguous(
                    memory_format=torch.channels_last
                )  # (c, h, w) each -> (n, c, h, w)
                for key in parts[0]
            }
        return self._kept[side]

    def _compute(self, side: str) -> list[Record]:
        """Return the activations of each image, (c, h, w) half floats, from the cache where it has them."""
        held, cache = self._sides[side], self._open_cache()
        if cache is None:
            return self._encode_all(held.images)
        plan = cache.plan(list(held.names), [self._record_bytes()] * len(held))
        kept = set(held.names[: plan.held])
        try:
            records = {name: cache.get(name) for name in kept}
            missing = [row for row, name in enumerate(held.names) if records.get(name) is None]
            fresh = dict(zip(missing, self._encode_all(held.images[missing]), strict=True))
            for row, part in fresh.items():
                if held.names[row] in kept:
                    cache.put(held.names[row], {key: pack(value) for key, value in part.items()})
        finally:
            cache.close()
        return [fresh[row] if row in fresh else _unpack(records[name]) for row, name in enumerate(held.names)]

    def _encode_all(self, images: np.ndarray) -> list[Record]:
        step = max(1, AT_ONCE // (images.shape[1] * images.shape[2]))
        parts: list[Record] = []
        for chunk in (images[k : k + step] for k in range(0, len(images), step)):
            found = {key: to_half(value) for key, value in self._encode(chunk).items()}
            parts += [{key: value[i] for key, value in found.items()} for i in range(len(chunk))]
        return parts

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

    def _record_bytes(self) -> int:
        """Return the bytes of an image's activations, from the stages' strides."""
        pooled, side, total = self._pooled, self.input.width or 0, 0
        for name in prefix_names(self.model, self.cut):
            stage = self.model.backbone.info[self.cut - 1 if name == "state" else int(name)]
            total += 2 * stage.channels * (1 if pooled else (-(-side // stage.stride) + 1) ** 2)
        return total

    @property
    def _pooled(self) -> bool:
        """Whether the head alone learns, which pools by the mean first of all."""
        return self.cut > max(self.model.head_stages)

    @torch.no_grad()
    def _encode(self, images: np.ndarray) -> dict[str, Tensor]:
        found = encode_prefix(self.model, torch.from_numpy(images).to(self.device), self.cut)
        if not self._pooled:
            return found
        # The mean of all positions, or of the one that is left, is the same.
        return {key: value.mean(dim=(2, 3), keepdim=True) for key, value in found.items()}


def _list_items(held: Side) -> list[Item]:
    pairs = zip(held.names, held.labels, strict=True)
    return [Item(Path(name), int(label), None, "train") for name, label in pairs]


def _unpack(record: Record | None) -> Record:
    return {key: value.movedim(-1, 0) for key, value in (record or {}).items()}  # (h, w, c) -> (c, h, w)
