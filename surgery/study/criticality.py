"""How critical each module is: how far it may go back to its start, and how much noise it bears."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from surgery.nets.assemble import Model
from surgery.study.line import borrowed
from surgery.study.measure import Measured, chance_loss, measure
from surgery.study.modules import Module, State, distance, list_modules
from surgery.study.sample import Held, Sample, hold

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Places on the path from the initial value (0) to the final one (1)."""
SIGMAS = tuple(2.0**-k for k in range(12, -1, -1))
"""Deviations of the Gaussian noise, rising, each twice the one before."""
EPSILON = 0.1
"""How much of the way from the model's loss to that of guessing the loss may rise."""
DRAWS = 3
"""Noises whose losses are averaged."""


@dataclass(frozen=True)
class Criticality:
    """What was found of one module.

    Attributes:
        module: Its name.
        depth: Its stage.
        distance: L2 distance of its final parameters from the initial ones.
        rewound_loss, rewound_error: Of the model with this module at its initial value.
        alpha, sigma: The place on the path and the noise that give the smallest measure.
        criticality: μ, the smallest of α² · distance² / σ² that keeps the loss within its bound. 0: the
            module may be rewound wholly.
        at_least: No place and no noise kept the loss within its bound: the true value is larger.
    """

    module: str
    depth: int
    distance: float
    rewound_loss: float
    rewound_error: float
    alpha: float
    sigma: float
    criticality: float
    at_least: bool = False

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Bound:
    """What the loss may be.

    Attributes:
        loss: Of the model as it is, nats.
        error: Share of wrong answers of it.
        most: The largest loss that is still within ε.
    """

    loss: float
    error: float
    most: float


def set_bound(model: Model, final: State, sample: Sample, epsilon: float) -> Bound:
    """Return what the loss may rise to: by a share ε of the way to the loss of guessing."""
    with borrowed(model):
        model.load_state_dict(final)
        found = measure(model, hold(model, sample, 0))
    room = max(0.0, chance_loss(sample.targets.output) - found.loss)
    return Bound(found.loss, found.error, found.loss + epsilon * room)


@dataclass
class Prefixes:
    """A sample before each stage of a model: whatever becomes of later stages, these are run once.

    The one asked for last is kept, so modules are best taken in their order.
    """

    model: Model
    final: State
    sample: Sample
    _stage: int = -1
    _held: Held | None = None

    def before(self, stage: int) -> Held:
        """Return the sample held before a stage."""
        if self._held is None or self._stage != stage:
            self._held = None  # not two at once
            with borrowed(self.model):
                self.model.load_state_dict(self.final)
                self._stage, self._held = stage, hold(self.model, self.sample, stage)
        return self._held


def trained_modules(model: Model) -> tuple[Module, ...]:
    """Return the modules that have parameters, shallow to deep."""
    return tuple(module for module in list_modules(model) if module.parameters)


def find_criticality(
    model: Model,
    module: Module,
    initial: State,
    final: State,
    prefixes: Prefixes,
    bound: Bound,
    seed: int,
    alphas: Sequence[float] = ALPHAS,
    sigmas: Sequence[float] = SIGMAS,
    draws: int = DRAWS,
) -> Criticality:
    """Measure the criticality of one module along the direct path from its initial to its final value.

    The noise of a seed is the same for every place and deviation, but for its size. All other modules
    stay at their final values.

    Args:
        model: The network; its weights are put back afterwards.
        module: What is rewound.
        initial, final: Weights before and after training.
        prefixes: The training sample before each stage of the final model.
        bound: What the loss may be.
        seed: Of the noise.
        alphas: Places tried, rising.
        sigmas: Deviations tried, rising.
        draws: Noises whose losses are averaged.

    References:
        Chatterji, Neyshabur, Sedghi 2020, arXiv:1912.00528, definition 3.1 (with the loss in place of
        the error, and the minimum over a grid); Neyshabur, Sedghi, Zhang 2020, arXiv:2008.11687, section
        3.4; Zhang, Bengio, Singer 2019, arXiv:1902.01996 (rewinding a layer).
    """
    moved = distance(initial, final, module.parameters)
    if all(initial[key].equal(final[key]) for key in module.keys):
        return Criticality(
            module.name, module.stage, 0.0, bound.loss, bound.error, 0.0, sigmas[-1], 0.0
        )  # it stands at its start, so it may be rewound wholly
    path = _Path(model, module, initial, final, prefixes.before(module.stage), seed, draws)
    with borrowed(model):
        model.load_state_dict(final)
        rewound = path.at(0.0)
        best: tuple[float, float, float] | None = None
        for alpha in alphas:
            wanted = 0 if best is None else _needed(alpha * moved, best[0], sigmas)
            k = path.largest(alpha, sigmas, wanted, bound.most)
            if k is not None:
                best = ((alpha * moved / sigmas[k]) ** 2, alpha, sigmas[k])
                if not best[0]:
                    break
    value, alpha, sigma = best or ((moved / sigmas[0]) ** 2, 1.0, sigmas[0])
    return Criticality(
        module.name, module.stage, moved, rewound.loss, rewound.error, alpha, sigma, value, best is None
    )


@dataclass
class _Path:
    """The path of one module, all others at their final values."""

    model: Model
    module: Module
    initial: State
    final: State
    held: Held
    seed: int
    draws: int

    def at(self, alpha: float, sigma: float = 0.0, draw: int = 0) -> Measured:
        """Return what is measured at a place with one noise."""
        known = f"{self.seed}/{self.module.name}/{draw}"
        noise = torch.Generator().manual_seed(zlib.crc32(known.encode()))
        own = {}
        for key in self.module.keys:
            start, end = self.initial[key], self.final[key]
            own[key] = end if not end.is_floating_point() or alpha == 1 else start + alpha * (end - start)
            if sigma and key in self.module.parameters:
                own[key] = own[key] + sigma * torch.randn(end.shape, generator=noise).to(end.device)
        self.model.load_state_dict(own, strict=False)
        return measure(self.model, self.held)

    def loss(self, alpha: float, sigma: float) -> float:
        """Return the mean loss over the noises."""
        return sum(self.at(alpha, sigma, draw).loss for draw in range(self.draws)) / self.draws

    def largest(self, alpha: float, sigmas: Sequence[float], low: int, most: float) -> int | None:
        """Return the index, from `low` on, of the largest noise whose loss is within a bound, or None.

        Halved again and again, as if more noise never made the loss smaller.
        """
        high = len(sigmas)
        if low >= high or self.loss(alpha, sigmas[low]) > most:
            return None
        while high - low > 1:
            middle = (low + high) // 2
            within = self.loss(alpha, sigmas[middle]) <= most
            low, high = (middle, high) if within else (low, middle)
        return low


def _needed(length: float, best: float, sigmas: Sequence[float]) -> int:
    """Return the index of the smallest deviation that would beat the best measure so far."""
    return next((k for k, sigma in enumerate(sigmas) if (length / sigma) ** 2 < best), len(sigmas))
