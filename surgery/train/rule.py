"""What a run learns by: the rule that makes one step of a batch, and judges the model after an epoch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from accelerate import Accelerator
from torch import Tensor, nn

from surgery.artifact.errors import TrainingError
from surgery.train.average import Average
from surgery.train.checkpoint import Progress
from surgery.train.interrupt import stop_requested
from surgery.train.losses import Loss
from surgery.train.team import Team

Losses = dict[str, float]
"""What a step is worth writing down, by name; `loss` is what training descends on."""


@dataclass(frozen=True)
class Judgement:
    """How good a model is after an epoch.

    Attributes:
        main: What the best epoch has most of.
        loss: On val; the smaller one settles a tie.
        scores: Named scores on val, each a share between 0 and 1.
        more: What else the history keeps, as plain values.
        said: What else is shown of it, by name.
    """

    main: float
    loss: float
    scores: dict[str, float]
    more: dict[str, Any] = field(default_factory=dict)
    said: dict[str, float] = field(default_factory=dict)


@dataclass
class Update:
    """What one step may use: the network, and the way down a loss.

    Attributes:
        suffix: Maps a batch's inputs to logits, or to whatever the rule's stage asks for as well.
        loss: Of logits and targets.
        optimizer: Over all that learns.
        learning: The tensors that learn.
        accelerator: The device.
        team: The processes.
        progress: Where the run is.
        done: Share of the phase's steps that are done, 0–1.
        average: The moving average of the weights, where the run keeps one.
        clip_norm: Largest norm of the gradient.
        weight: Of this process's part of the batch.
        group: Batches whose gradients make one step of the optimizer.
        completes: Whether this batch is the last of its group.
        files: Names the images of the batch, for an error.
        stopped: Whether a process was asked to stop meanwhile.
    """

    suffix: nn.Module
    loss: Loss
    optimizer: Any
    learning: list[Tensor]
    accelerator: Accelerator
    team: Team
    progress: Progress
    done: float
    average: Average | None
    clip_norm: float
    weight: float
    group: int
    completes: bool
    files: Callable[[], str]
    stopped: bool = False

    def descend(self, loss: Tensor) -> float:
        """Add the gradients of a loss, and move by them once the group is complete.

        Returns:
            The loss over all processes.

        Raises:
            TrainingError: If it is not a number; nothing has moved.
        """
        value = self._share(float(loss.detach()) * self.weight)
        if not math.isfinite(value):
            raise TrainingError(
                f"epoch {self.progress.epoch + 1} step {self.progress.step}: the loss is {value}; "
                f"images of the batch: {self.files()}",
                "Lower --lr, look at these images, or use --precision fp32. The best checkpoint is kept.",
            )
        self.accelerator.backward(loss * (self.weight / self.group))
        if self.completes:
            self.accelerator.clip_grad_norm_(self.learning, self.clip_norm)
            self.optimizer.step()
            self.optimizer.zero_grad()
        return value

    def stay(self) -> None:
        """Move nothing."""
        self._share(0.0)

    def _share(self, value: float) -> float:
        """Return the mean of a value over all processes, and note whether one was asked to stop."""
        mean, stop = self.team.mean(value, stop_requested())
        self.stopped = self.stopped or stop
        return mean


class Rule(Protocol):
    """What a run learns by. The loop does the rest: phases, epochs, rates, checkpoints, the best weights."""

    @property
    def companion(self) -> nn.Module | None:
        """Learns beside the model and stands in its checkpoints; it is cut off when training ends."""

    @property
    def tap(self) -> int | None:
        """Stage whose feature map the suffix returns beside the logits; None for the logits alone."""

    def learn(self, batch: Any, update: Update) -> Losses:
        """Learn from one batch, by one call of `update.descend` or several, or of `update.stay`."""

    def judge(self, suffix: nn.Module, feed: Any, loss: Loss, batch_size: int, epoch: int) -> Judgement:
        """Judge the model as it is, in inference mode; `epoch` of them are done, over all sittings."""
