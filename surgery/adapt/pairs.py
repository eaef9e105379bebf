"""Batches of two domains: what the source shows with labels, and what the target shows without."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from surgery.artifact.manifest import InputSpec
from surgery.data.targets import TargetSpec
from surgery.train.feed import Batch, Feed


@dataclass(frozen=True)
class Pair(Batch):
    """A batch of the source, and one of the target.

    Attributes:
        target: Images of the target, augmented; its `targets` tell nothing.
        plain: The same images as the service would see them, where a teacher is to look at them.
    """

    target: Batch | None = None
    plain: Batch | None = None


@dataclass(frozen=True)
class PairedFeed:
    """Where the pairs of a run come from. An epoch is one pass over the source.

    The target goes on where the last epoch left it and begins again, in another order, when it is
    through: both may be of any size. Where the target is only measured an epoch is one pass over it.

    Args:
        source: Labelled images for training and validation.
        target: Images without labels, in train; those that criteria are measured on, in val.
        labelled: Images of the target with labels, in val, that nothing is chosen by.
        teaches: Whether each batch of the target comes a second time, plain.
        measures: Whether nothing is learnt from the source.
    """

    source: Feed
    target: Feed
    labelled: Feed | None
    teaches: bool
    measures: bool = False

    @property
    def parts(self) -> tuple[Feed, ...]:
        """The feeds that it is made of, each with a cache of its own."""
        return (self.source, self.target, *([self.labelled] if self.labelled else []))

    @property
    def input(self) -> InputSpec:
        """How an image becomes the network's input."""
        return self.source.input

    @property
    def targets(self) -> TargetSpec:
        """Which classes are learnt."""
        return self.source.targets

    def order(self, epoch: int, batch_size: int) -> list[list[int]]:
        """Return the images of each step of an epoch, as indices: the source's, or the target's."""
        return (self.target if self.measures else self.source).order(epoch, batch_size)

    def epoch(self, epoch: int, batch_size: int, start: int = 0) -> Iterator[Pair]:
        """Yield the pairs of an epoch from step `start` on; each half has up to `batch_size` images."""
        if self.measures:
            for batch in self.target.epoch(epoch, batch_size, start):
                yield Pair(**vars(batch), target=batch)
            return
        steps = len(self.order(epoch, batch_size))
        first, count = epoch * steps + start, steps - start
        target = self._follow(first, count, batch_size)
        plain = self._follow(first, count, batch_size, plain=True) if self.teaches else None
        for batch in self.source.epoch(epoch, batch_size, start):
            taught = None if plain is None else next(plain)
            yield Pair(**vars(batch), target=next(target), plain=taught)

    def close(self) -> None:
        """Release the caches for others."""
        for part in self.parts:
            part.close()

    def _follow(self, first: int, count: int, batch_size: int, plain: bool = False) -> Iterator[Batch]:
        """Yield `count` batches of the target from the `first` of all passes over it on."""
        length = len(self.target.order(0, batch_size))
        while count > 0:
            passed, start = divmod(first, length)
            taken = min(count, length - start)
            yield from islice(self.target.epoch(passed, batch_size, start, plain), taken)
            first, count = first + taken, count - taken
