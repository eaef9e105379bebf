"""Whether models lie in one basin of the loss: inside, at the rim with noise, and outside."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from surgery.artifact.errors import ConfigError
from surgery.nets.assemble import Model
from surgery.study.line import Progress, borrowed
from surgery.study.measure import measure
from surgery.study.modules import State, distance, first_difference, mix_states
from surgery.study.sample import Held, Sample, hold

POINTS = 10
"""Points drawn for each of the three conditions."""
RADIUS_SHARE = 0.5
"""The radius δ as a share of the mean distance between the models."""

Coordinates = NDArray[np.float64]


@dataclass(frozen=True)
class Basin:
    """The three conditions of a basin, measured on the convex hull of some models.

    Attributes:
        points: Points drawn for each.
        radius: δ, in the units of the weights.
        loss: Mean loss inside, nats.
        spread: Condition 1, ε: mean distance of the loss of a point inside from that mean.
        variance: Variance of the loss inside.
        rim: Condition 2: how far the mean loss of points at the rim, with noise of length δ, lies above the
            mean inside. It holds where that is twice ε at least.
        outside: Condition 3: the same of points beyond the rim, by a step of about δ.
    """

    points: int
    radius: float
    loss: float
    spread: float
    variance: float
    rim: float
    outside: float

    @property
    def holds(self) -> tuple[bool, bool]:
        """Whether conditions 2 and 3 hold for the ε of condition 1."""
        return self.rim >= 2 * self.spread, self.outside >= 2 * self.spread

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"rim_holds": self.holds[0], "outside_holds": self.holds[1]}


def probe_basin(
    model: Model, states: list[State], sample: Sample, seed: int, progress: Progress, points: int = POINTS
) -> Basin:
    """Measure the three conditions on the convex hull of some models.

    Weights that are the same in all of them are no dimension of the hull and get no noise.

    Args:
        model: The models' network; its weights are put back afterwards.
        states: Weights of two models or more.
        sample: What the loss is measured on.
        seed: Of the points and of the noise.
        progress: Called with (points done, points in all).
        points: Points drawn for each condition.

    Raises:
        ConfigError: Fewer than two models, or all are the same.

    References:
        Neyshabur, Sedghi, Zhang 2020, arXiv:2008.11687, definition 3.1.
    """
    moved, radius = _describe_hull(model, states)
    cut = min(first_difference(states[0], state, model) for state in states[1:])
    size = sum(states[0][key].numel() for key in moved)
    rng = np.random.default_rng(seed)
    noise = torch.Generator().manual_seed(seed)
    losses: dict[str, list[float]] = {"inside": [], "rim": [], "outside": []}
    with borrowed(model):
        model.load_state_dict(states[0])
        held = hold(model, sample, cut)
        for k in range(points):
            w1, w2 = rng.dirichlet(np.ones(len(states)), 2)
            rim = reach_rim(w1, w2)
            losses["inside"].append(_loss(model, held, mix_states(states, w1.tolist())))
            at_rim = mix_states(states, rim.tolist())
            shaken = at_rim | {
                key: at_rim[key] + _noise(at_rim[key], noise, radius / size**0.5) for key in moved
            }
            losses["rim"].append(_loss(model, held, shaken))
            start = mix_states(states, w1.tolist())
            step = radius * abs(rng.standard_normal()) / distance(at_rim, start, moved)
            # Statistics of batch norm are no weights: drawn further they could fall below 0.
            beyond = {key: at_rim[key] + step * (at_rim[key] - start[key]) for key in moved}
            losses["outside"].append(_loss(model, held, at_rim | beyond))
            progress(k + 1, points)
    inside = np.array(losses["inside"])
    mean = float(inside.mean())
    return Basin(
        points,
        radius,
        mean,
        float(np.abs(inside - mean).mean()),
        float(inside.var()),
        float(np.mean(losses["rim"])) - mean,
        float(np.mean(losses["outside"])) - mean,
    )


def reach_rim(w1: Coordinates, w2: Coordinates) -> Coordinates:
    """Return where the ray from one point of a hull through another leaves it, in barycentric coordinates.

    Args:
        w1, w2: Shares of each model, shape (k,), not negative, with the sum 1; they differ.
    """
    step = w2 - w1
    falling = step < 0
    reach = float((w1[falling] / -step[falling]).min())
    rim = np.clip(w1 + reach * step, 0.0, None)
    return np.asarray(rim / rim.sum())


def _describe_hull(model: Model, states: list[State]) -> tuple[tuple[str, ...], float]:
    """Return the parameters in which the models differ, and δ."""
    names = [name for name, _ in model.named_parameters()]
    moved = tuple(name for name in names if any(not states[0][name].equal(state[name]) for state in states))
    if len(states) < 2 or not moved:
        raise ConfigError(
            f"a basin of {len(states)} model(s) that do not differ has no inside", "Name two that differ."
        )
    apart = [distance(a, b, moved) for i, a in enumerate(states) for b in states[:i]]
    return moved, RADIUS_SHARE * float(np.mean(apart))


def _noise(like: torch.Tensor, generator: torch.Generator, scale: float) -> torch.Tensor:
    return scale * torch.randn(like.shape, generator=generator).to(like.device)


def _loss(model: Model, held: Held, state: State) -> float:
    """Return the loss of some weights; where it overflows it is infinite."""
    model.load_state_dict(state)
    loss = measure(model, held).loss
    return loss if math.isfinite(loss) else math.inf
