"""The learning-rate range test: a short run whose rate rises, to see where the loss falls fastest."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from surgery.artifact.errors import TrainingError
from surgery.nets.assemble import Model
from surgery.nets.backbone import set_trainable
from surgery.train.cache import fill_cache
from surgery.train.checkpoint import restore_weights
from surgery.train.cut import Suffix, set_head_norms
from surgery.train.engine import Loop, learnt_keys
from surgery.train.feed import Feed
from surgery.train.losses import Loss
from surgery.train.optimizers import make_optimizer
from surgery.train.team import Team

LOWEST, HIGHEST = 1e-6, 1.0
STEPS = 80
SMOOTHING = 0.9
"""Share of the running mean of the loss that stays at each step."""
SKIPPED = 10
"""Steps at the start whose slope says nothing: the running mean holds too few batches."""
DIVERGED = 3.0
"""The test ends when the smoothed loss is this many times its lowest value."""


@dataclass(frozen=True)
class RangeTest:
    """What the test saw.

    Attributes:
        rates: Peak rates of the new layers, rising, as far as the test went.
        losses: The smoothed training loss at each.
        chosen: Where the loss falls fastest, for each factor by which the rate rises.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    chosen: float

    def save(self, path: Path) -> None:
        """Write rates, losses and choice as JSON."""
        path.write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n", "utf-8")


def measure_rates(loop: Loop) -> RangeTest:
    """Run the test on the first phase of a loop, and leave model and random state as they were.

    The rates of all layers rise together, in the proportions of the phase.

    Raises:
        TrainingError: If the loss is not a number, or rises, at every rate.

    References:
        Smith 2017, arXiv:1506.01186, section 3.3.
    """
    model, phase, options = loop.model, loop.phases[0], loop.options
    model.to(loop.accelerator.device).to(memory_format=torch.channels_last)
    set_trainable(model.backbone, phase.first, options.train_bn)
    before = {key: model.state_dict()[key].clone() for key in learnt_keys(model, phase.first)}
    state = torch.get_rng_state()
    optimizer = make_optimizer(model, phase, options.weight_decay, options.optimizer, options.layer_decay)
    suffix = loop.accelerator.prepare(Suffix(model, phase.first))
    feed = loop.open_feed(phase.first, phase.scale_at(0))
    try:
        fill_cache(feed, loop.report)
        with loop.report.task("testing learning rates") as task:
            team = Team(loop.accelerator)
            return _run(model, suffix, feed, loop.loss, optimizer, options.batch_size, team, task.update)
    finally:
        feed.close()
        restore_weights(model, before)
        torch.set_rng_state(state)


def _run(
    model: Model,
    suffix: nn.Module,
    feed: Feed,
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    batch_size: int,
    team: Team,
    progress: Callable[[int, int], None],
) -> RangeTest:
    """Train for some steps with a rate that rises; epochs follow each other until the steps are done."""
    rates = np.geomspace(LOWEST, HIGHEST, STEPS)
    seen: list[float] = []
    mean, epoch = 0.0, 0
    suffix.train()
    top = optimizer.param_groups[0]["peak_lr"]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    while len(seen) < STEPS:
        for batch in feed.epoch(epoch, batch_size):
            for group in optimizer.param_groups:
                group["lr"] = float(rates[len(seen)]) * group["peak_lr"] / top
            set_head_norms(model, len(batch.items))
            value = loss(suffix(batch.inputs, batch.size), batch.targets) * batch.weight
            common, _ = team.mean(
                float(value.detach()), False
            )  # or one would stop and the others wait for it
            mean = SMOOTHING * mean + (1 - SMOOTHING) * common
            smooth = mean / (1 - SMOOTHING ** (len(seen) + 1))
            if not math.isfinite(smooth) or (seen and smooth > DIVERGED * min(seen)):
                return _choose(rates, seen)
            seen.append(smooth)
            value.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            progress(len(seen), STEPS)
            if len(seen) == STEPS:
                break
        epoch += 1
    return _choose(rates, seen)


def _choose(rates: np.ndarray, losses: list[float]) -> RangeTest:
    """Take the steepest place before the lowest loss, behind the first few."""
    if len(losses) < 4:
        raise TrainingError(
            "--lr auto: the loss is not a number, or rises at once, at every rate",
            "Look at the data, or give --lr yourself.",
        )
    curve = np.asarray(losses)
    slope = np.gradient(curve, np.log(rates[: len(curve)]))
    lowest = max(2, int(curve.argmin()))
    first = min(SKIPPED, lowest - 1)
    chosen = float(rates[first + int(slope[first:lowest].argmin())])
    return RangeTest(tuple(map(float, rates[: len(curve)])), tuple(losses), chosen)
