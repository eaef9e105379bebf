"""Batches for training and validation: images through the transforms, or activations from the cache."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor

from surgery.artifact.image import input_size, read_image, read_size
from surgery.artifact.manifest import InputSpec
from surgery.data.augment import Pipeline, describe_content
from surgery.data.balance import draw_balanced
from surgery.data.loaders import batches, iterate
from surgery.data.resizing import describe_size, shrink_input, training_size
from surgery.data.table import Item, Table
from surgery.data.targets import NO_LABEL, TargetSpec
from surgery.data.transforms import make_view, view_seed
from surgery.nets.assemble import Model
from surgery.train.cache import ActivationCache, CachePlan, Record, digest_modules, pack, to_half, unpack
from surgery.train.cut import encode_prefix, prefix_names

FILL_PIXELS = 8 * 224 * 224
"""Pixels per forward pass while the cache is filled: enough to be busy, few enough for any memory."""
WRITES_AHEAD = 16
"""Records that wait to be written while the next ones are computed."""


@dataclass(frozen=True)
class Example:
    """One image as one view. View 0 is what the service would see; the others are augmented."""

    item: Item
    view: int
    scale: float = 1.0


@dataclass(frozen=True)
class Batch:
    """What one step needs.

    Attributes:
        items: The n images' rows of the table.
        inputs: `images` (n, h, w, 3) uint8 where nothing is frozen, else the activations by name,
            each (n, c, h, w) float32 and channels last.
        targets: Classes (n,) int64, several classes (n, c) float32 of 0 and 1, or masks (n, h, w) int64
            with 255 where the loss looks away; `NO_LABEL` of an image without a label.
        size: (h, w) of the network's input before padding.
        weight: Of the loss: several processes have parts of unequal size, and their mean must be that of
            the whole batch.
    """

    items: list[Item]
    inputs: dict[str, Tensor]
    targets: Tensor
    size: tuple[int, int]
    weight: float = 1.0


@dataclass
class Feed:
    """Where the batches of one phase come from.

    Args:
        model: The model; its stages before `cut` do not change during the phase.
        cut: Index of the first stage that learns.
        table: The data.
        input: How an image becomes the network's input.
        targets: Which classes are learnt.
        augment: Name of the augmentation.
        views: Views kept per image, or 0 for a new one every epoch.
        seed: Seed of order and augmentation.
        device: Where the model lies.
        workers: Threads that read images.
        cache_gib: Bound on the activation cache, GiB; 0 turns it off.
        precision: Precision of the frozen part, part of the cache's key.
        autocast: Context that the frozen part runs in.
        sampler: `uniform`: each image once an epoch. `balanced`: as many, drawn so that the classes are
            equally frequent (labels).
        rank: Number of this process; it takes each `ranks`-th image of every batch, and of what is cached.
        ranks: Number of processes.
        pipeline: The steps of the augmentation `custom`.
        scale: Share of the input's sides that training images have (progressive resizing); validation is
            always at the full size.
    """

    model: Model
    cut: int
    table: Table
    input: InputSpec
    targets: TargetSpec
    augment: str
    views: int
    seed: int
    device: torch.device
    workers: int
    cache_gib: float
    precision: str = "fp32"
    autocast: Callable[[], Any] = nullcontext
    sampler: str = "uniform"
    rank: int = 0
    ranks: int = 1
    pipeline: Pipeline | None = None
    scale: float = 1.0
    cache: ActivationCache | None = field(default=None, init=False)
    plan: CachePlan | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.input.size_rule != "native" and shrink_input(self.input, self.scale) == self.input:
            self.scale = 1.0  # so that it has the cache of the full size, which it is after rounding
        self._views = {
            scale: make_view(self.input, self.augment, self.pipeline, scale) for scale in {1.0, self.scale}
        }
        self._train = self.table.of("train")
        self._val = self.table.of("val")
        self._sizes: dict[Item, tuple[int, int]] = {}
        self._held: set[str] = set()
        if self.augment == "none":
            self.views = 1
        elif self.augment == "flip":
            self.views = min(self.views, 2)  # an image has one mirror image
        if self.cut > 0 and self.cache_gib > 0 and self.views > 0:
            self._open_cache()

    def fill(self, progress: Callable[[int, int], None]) -> None:
        """Run the frozen part once for each record that the cache shall hold and does not.

        Args:
            progress: Called with (records done, records in all).

        Raises:
            DiskFullError: If the disk fills up.
        """
        if self.cache is None or self.plan is None:
            return
        cache = self.cache
        wanted = [example for example in self._examples() if self._name(example) in self._held]
        # The same batches whatever a killed run left, so that each record comes out the same bit for bit.
        sizes = [self._size_of(example) for example in wanted]
        largest = max((width * height for width, height in sizes), default=1)
        order = batches(sizes, max(1, FILL_PIXELS // largest), shuffle=False)
        missing = [b for b in order if not all(cache.holds(self._name(wanted[i])) for i in b)]
        missing = missing[self.rank :: self.ranks]
        done = len(wanted) - sum(map(len, missing))
        progress(done, len(wanted))
        with ThreadPoolExecutor(1, thread_name_prefix="write") as writer:  # beside the next forward pass
            writing: deque[Future[None]] = deque()
            for loaded in iterate(wanted, missing, self._load, self.workers):
                while len(writing) > WRITES_AHEAD:
                    writing.popleft().result()
                for example, record in self._encode(loaded):
                    writing.append(writer.submit(cache.put, self._name(example), record))
                done += len(loaded)
                progress(done, len(wanted))
            for write in writing:
                write.result()

    @property
    def parts(self) -> tuple[Feed, ...]:
        """The feeds that it is made of, each with a cache of its own."""
        return (self,)

    def epoch(self, epoch: int, batch_size: int, start: int = 0, plain: bool = False) -> Iterator[Batch]:
        """Yield the training batches of an epoch, or this process's part of each, from step `start` on.

        Args:
            epoch: Number of the epoch in the run; decides order and views.
            batch_size: Images per batch; the last one may be smaller.
            start: Steps already done.
            plain: Every image as the service would see it.
        """
        views = [0 if plain else self._choose_view(item, epoch) for item in self._train]
        pairs = zip(self._train, views, strict=True)
        examples = [Example(item, view, self.scale) for item, view in pairs]
        order = self.order(epoch, batch_size)[start:]
        parts = [batch[self.rank :: self.ranks] for batch in order]
        weights = [len(part) * self.ranks / len(batch) for part, batch in zip(parts, order, strict=True)]
        # A process without an image takes part all the same: the others wait for its gradients.
        parts = [part or batch[:1] for part, batch in zip(parts, order, strict=True)]
        for batch, weight in zip(self._batches(examples, parts), weights, strict=True):
            yield replace(batch, weight=weight)

    def order(self, epoch: int, batch_size: int) -> list[list[int]]:
        """Return the training images of each step of an epoch, as indices."""
        chosen = list(range(len(self._train)))
        if self.sampler == "balanced":
            chosen = draw_balanced(self._train, self.seed, epoch)
        sizes = [self._size(self._train[index]) for index in chosen]
        parts = batches(sizes, batch_size, self.seed, epoch, shuffle=True)
        return [[chosen[i] for i in part] for part in parts]

    def validation(self, batch_size: int) -> Iterator[tuple[Batch, list[Any]]]:
        """Yield the validation images as the service would see them, in the table's order by size.

        Each batch comes with the truths of its images: labels, or whole masks (h, w) uint8 of the image's
        own size, which the threads read as well.
        """
        examples = [Example(item, 0) for item in self._val]
        sizes = [self._size(item) for item in self._val]

        def fetch(example: Example) -> tuple[tuple[Example, Record], Any]:
            return self._fetch(example), self._read_truth(example.item)

        for loaded in iterate(examples, batches(sizes, batch_size, shuffle=False), fetch, self.workers):
            yield self._collate([fetched for fetched, _ in loaded]), [truth for _, truth in loaded]

    def view(self, number: int, batch_size: int) -> Iterator[Batch]:
        """Yield all training images as one of the `views`, in a fixed order; 0 is the plain one."""
        examples = [Example(item, number, self.scale) for item in self._train]
        sizes = [self._size(item) for item in self._train]
        yield from self._batches(examples, batches(sizes, batch_size, shuffle=False))

    def rehearse(self, count: int) -> Batch:
        """Return a batch of `count` times the largest training image; nothing of it is cached."""
        largest = max(self._train, key=lambda item: math.prod(self._size(item)))
        return self._collate([self._load(Example(largest, 0))] * count)

    def close(self) -> None:
        """Release the cache for others."""
        if self.cache is not None:
            self.cache.close()

    def _batches(self, examples: list[Example], order: list[list[int]]) -> Iterator[Batch]:
        for loaded in iterate(examples, order, self._fetch, self.workers):
            yield self._collate(loaded)

    def _fetch(self, example: Example) -> tuple[Example, Record]:
        if self.cache is not None and self._name(example) in self._held:
            record = self.cache.get(self._name(example))
            if record is not None:
                return example, record
        return self._load(example)

    def _load(self, example: Example) -> tuple[Example, Record]:
        image = read_image(example.item.image)
        mask = None if example.item.mask is None else self._read_truth(example.item)
        view = self._views[example.scale]
        image, mask = view(image, mask, self._seed_of(example), self._is_plain(example))
        record = {"image": _to_tensor(image)}  # (h, w, 3)
        if mask is not None:
            record["target"] = _to_tensor(mask)  # (h, w)
        return example, record

    def _read_truth(self, item: Item) -> Any:
        return item.truth if item.mask is None else self.targets.encode_mask(item.mask.read())

    def _collate(self, loaded: list[tuple[Example, Record]]) -> Batch:
        items = [example.item for example, _ in loaded]
        if self.cut == 0:
            images = torch.stack([record["image"] for _, record in loaded])  # (n, h, w, 3)
            inputs = {"images": images.to(self.device, non_blocking=True)}
            size = (images.shape[1], images.shape[2])
        else:
            inputs, size = self._gather(loaded)
        if self.table.multilabel:
            targets = torch.zeros(len(items), len(self.targets.output.classes))  # (n, c)
            for row, item in zip(targets, items, strict=True):
                row[list(item.labels or ())] = 1
        elif items[0].mask is None:  # images without labels tell the loss to look away
            targets = torch.tensor([NO_LABEL if item.label is None else item.label for item in items])
        else:
            targets = torch.stack([record["target"] for _, record in loaded])  # (n, h, w) uint8
        targets = targets.to(self.device, non_blocking=True)
        return Batch(items, inputs, targets if self.table.multilabel else targets.long(), size)

    def _gather(self, loaded: list[tuple[Example, Record]]) -> tuple[dict[str, Tensor], tuple[int, int]]:
        if all("image" in record for _, record in loaded):
            images = torch.stack([record["image"] for _, record in loaded])  # (n, h, w, 3)
            activations = self._run_frozen(images)
            if self.cache is not None:  # the same rounding whether a record is cached or not
                activations = {key: to_half(value).float() for key, value in activations.items()}
            return activations, (images.shape[1], images.shape[2])
        fresh = [(example, record) for example, record in loaded if "image" in record]
        encoded = dict(self._encode(fresh)) if fresh else {}
        for example, record in encoded.items():
            if self.cache is not None and self._name(example) in self._held:  # it was damaged
                self.cache.put(self._name(example), record)
        records = [encoded.get(example, record) for example, record in loaded]
        names = [name for name in records[0] if name not in ("target", "image")]
        inputs = {name: unpack([record[name] for record in records], self.device) for name in names}
        width, height = self._size_of(loaded[0][0])
        return inputs, (height, width)

    def _encode(self, loaded: list[tuple[Example, Record]]) -> Iterator[tuple[Example, Record]]:
        images = torch.stack([record["image"] for _, record in loaded])  # (n, h, w, 3)
        activations = self._run_frozen(images)
        for i, (example, record) in enumerate(loaded):
            packed = {name: pack(value[i]) for name, value in activations.items()}
            yield example, {**packed, **{k: v for k, v in record.items() if k == "target"}}

    def _run_frozen(self, images: Tensor) -> dict[str, Tensor]:
        with torch.no_grad(), self.autocast():
            return encode_prefix(self.model, images.to(self.device), self.cut)

    def _choose_view(self, item: Item, epoch: int) -> int:
        if self.views == 0:
            return epoch + 1
        return (epoch + int(self._digest(item)[:8], 16)) % self.views

    def _is_plain(self, example: Example) -> bool:
        if example.view == 0 or self.augment == "none":
            return True
        return self.augment == "flip" and self.views == 0 and self._seed_of(example) % 2 == 0

    def _seed_of(self, example: Example) -> int:
        return view_seed(self.seed, self._digest(example.item), example.view)

    def _digest(self, item: Item) -> str:
        return self.table.content_hash(item)

    def _name(self, example: Example) -> str:
        digest = self._digest(example.item)[:40]
        if example.item.mask is not None:
            digest += f"-{example.item.mask.digest()[:16]}"
        seeded = example.view > 0 and self.augment != "flip"
        # The same image may stand in val, at the full size.
        scaled = "-{}x{}".format(*self._size_of(example)) if example.scale < 1 else ""
        return f"{digest}-{example.view}" + (f"-{self.seed}" if seeded else "") + scaled

    def _size_of(self, example: Example) -> tuple[int, int]:
        """Return (width, height) of the network's input for an example."""
        full = self._size(example.item)
        return full if example.scale == 1 else training_size(full, self.input, example.scale)

    def _size(self, item: Item) -> tuple[int, int]:
        """Return (width, height) of the network's input for an image, read from its header once."""
        if self.input.size_rule != "native":
            return self.input.width or 0, self.input.height or 0
        if item not in self._sizes:
            self._sizes[item] = input_size(read_size(item.image), self.input)
        return self._sizes[item]

    def _examples(self) -> list[Example]:
        """Return every record the phase needs, the most useful first."""
        found = [Example(item, 0) for item in self._val]
        train = [Example(item, view, self.scale) for view in range(self.views) for item in self._train]
        return found + train

    def _open_cache(self) -> None:
        key = {
            "format": 1,
            "frozen": digest_modules(list(self.model.backbone.stages[: self.cut])),
            "backbone": self.model.backbone.name,
            "cut": self.cut,
            "head_stages": list(self.model.head_stages),
            "stride": self.model.stride,
            "libraries": [version(name) for name in ("torch", "timm", "albumentations", "pillow")],
            "input": self.input.__dict__ | self._describe_growth(),
            "augment": describe_content(self.augment, self.pipeline, self.table.task == "segment"),
            "targets": self.targets.describe(),
            "precision": self.precision,
            "device": self.device.type,
        }
        self.cache = ActivationCache(key, self.cache_gib)
        examples = self._examples()
        sizes = {self._size_of(example) for example in examples}
        cost = {size: self._record_bytes(size) for size in sizes}
        names = [self._name(example) for example in examples]
        self.plan = self.cache.plan(names, [cost[self._size_of(e)] for e in examples])
        self._held = set(names[: self.plan.held])

    def _describe_growth(self) -> dict[str, str]:
        return {"training": describe_size(self.input, self.scale)} if self.scale < 1 else {}

    def _record_bytes(self, size: tuple[int, int]) -> int:
        """Return the bytes of a record for an input of (width, height), from the stages' strides."""
        width, height = size
        total = width * height if self.table.task == "segment" else 0
        stride = self.model.stride
        padded = (width + -width % stride, height + -height % stride)
        for name in prefix_names(self.model, self.cut):
            stage = self.model.backbone.info[self.cut - 1 if name == "state" else int(name)]
            columns, rows = (-(-side // stage.stride) + 1 for side in padded)
            total += 2 * stage.channels * columns * rows
        return total


def _to_tensor(array: np.ndarray) -> Tensor:
    """Return an array as a tensor; decoded images may be read-only, which torch cannot hold."""
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))
