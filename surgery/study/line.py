"""The straight line between two models in the space of their weights, and the barrier on it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from surgery.artifact.errors import ConfigError
from surgery.nets.assemble import Model
from surgery.study.measure import measure
from surgery.study.modules import State, copy_state, first_difference, mix_states
from surgery.study.sample import Held, Sample, hold
from surgery.train.cut import Suffix

POINTS = 11
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Line:
    """What was measured along a line.

    Attributes:
        places: How far along, 0 the first model and 1 the second, rising.
        losses: Mean cross-entropy at each place, nats.
        errors: Share of wrong answers at each place.
        cut: Stages that both models have in common, which were run once.
        reestimated: Whether batch norm was measured anew at each place, on training images.
    """

    places: tuple[float, ...]
    losses: tuple[float, ...]
    errors: tuple[float, ...]
    cut: int
    reestimated: bool

    @property
    def barrier(self) -> float:
        """How far the loss rises above the line between the losses of the ends, nats; 0: nowhere."""
        return find_barrier(self.places, self.losses)

    @property
    def error_barrier(self) -> float:
        """The same of the error."""
        return find_barrier(self.places, self.errors)

    def to_dict(self) -> dict[str, Any]:
        rows = zip(self.places, self.losses, self.errors, strict=True)
        return {
            "points": [{"t": t, "loss": loss, "error": error} for t, loss, error in rows],
            "barrier": self.barrier,
            "error_barrier": self.error_barrier,
            "stages_run_once": self.cut,
            "bn": "reestimated" if self.reestimated else "kept",
        }


def find_barrier(places: tuple[float, ...], values: tuple[float, ...]) -> float:
    """Return the largest height of values above the straight line between the first and the last.

    References:
        Frankle et al. 2020, arXiv:1912.05671, section 2 (error barrier height, here above the
        interpolated ends as in Entezari et al. 2022, arXiv:2110.06296, eq. 1).
    """
    first, last = values[0], values[-1]
    return max(
        value - ((1 - t) * first + t * last) if 0 < t < 1 else 0.0
        for t, value in zip(places, values, strict=True)
    )


def walk_line(
    model: Model,
    first: State,
    second: State,
    sample: Sample,
    progress: Progress,
    points: int = POINTS,
    training: Sample | None = None,
) -> Line:
    """Measure loss and error along the line from one model to another.

    Stages that are the same in both are run once. Parameters and batch-norm statistics are interpolated.

    Args:
        model: Both models' network; its weights are put back afterwards.
        first, second: Weights of the ends.
        sample: What is measured on.
        progress: Called with (points done, points in all).
        points: Places measured, evenly spread, both ends among them.
        training: Training images: batch norm behind the first stage that differs is measured anew on
            them at every place, the ends included.

    Raises:
        ConfigError: If the loss of a place is no finite number, so that there is no barrier to tell of.

    References:
        Neyshabur, Sedghi, Zhang 2020, arXiv:2008.11687, section 3.3; Jordan et al. 2023, arXiv:2211.08403
        (batch norm measured anew).
    """
    cut = first_difference(first, second, model)
    with borrowed(model):
        model.load_state_dict(first)
        held = hold(model, sample, cut)
        seen = hold(model, training, held.cut) if training is not None else None
        found = []
        places = tuple(k / (points - 1) for k in range(points))
        for k, t in enumerate(places):
            model.load_state_dict(mix_states([first, second], [1 - t, t]))
            if seen is not None:
                reestimate(model, seen, cut)
            found.append(measure(model, held))
            if not math.isfinite(found[-1].loss):
                raise ConfigError(
                    f"the loss is no finite number {t:g} of the way from the first to the second",
                    "Batch-norm statistics may not fit between them: try --bn reestimate.",
                )
            progress(k + 1, points)
    losses, errors = tuple(each.loss for each in found), tuple(each.error for each in found)
    return Line(places, losses, errors, held.cut, seen is not None)


@contextmanager
def borrowed(model: nn.Module) -> Iterator[None]:
    """Let a model have other weights inside, and put its own back, also after a failure."""
    own = copy_state(model)
    try:
        yield
    finally:
        model.load_state_dict(own)


def reestimate(model: Model, held: Held, first: int = 0) -> int:
    """Measure batch norm anew on the images of a sample; return how many layers there were.

    Args:
        model: Its batch norm's statistics are replaced.
        held: Training images.
        first: Stage from which on batch norm is measured; those before it have not changed.
    """
    parts = [*list(model.backbone.stages)[first:], model.head]
    norms = [module for part in parts for module in part.modules() if isinstance(module, _BatchNorm)]
    if not norms:
        return 0
    kept = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    suffix = Suffix(model, held.cut)
    try:
        with torch.no_grad():
            for batch, inputs in zip(held.sample.batches, held.inputs, strict=True):
                if len(batch.items) > 1:
                    suffix(inputs, batch.size)
    finally:
        for norm, momentum in zip(norms, kept, strict=True):
            norm.momentum = momentum
            norm.eval()
    return len(norms)
