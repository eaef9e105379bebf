"""A strategy is data: a tuple of phases that say what learns, for how long and at which rate."""

from __future__ import annotations

from dataclasses import dataclass, replace

from surgery.artifact.errors import ConfigError
from surgery.config import FinetuneConfig


@dataclass(frozen=True)
class Phase:
    """One stretch of training in which the same layers learn.

    Attributes:
        name: What happens, for progress and logs.
        first: Index of the first stage that learns; the number of stages means the head only.
        epochs: Passes over the training images at most.
        lr: Peak learning rate of the layers that are new.
        backbone_lr: Peak learning rate of the stages that learn.
        patience: Epochs without a better score before the phase ends, or None. Those before the input has
            its full size do not count.
        scales: Shares of the input's sides that it trains at, in turn (progressive resizing). Each lasts
            equally long, the last one also what is left over. Optimizer, warm-up and cosine are the phase's
            and know nothing of them.
    """

    name: str
    first: int
    epochs: int
    lr: float
    backbone_lr: float
    patience: int | None
    scales: tuple[float, ...] = (1.0,)

    @property
    def growth(self) -> tuple[tuple[int, float], ...]:
        """The epoch of the phase, from 0, at which each scale begins, and the scale."""
        length = self.epochs // len(self.scales)
        return tuple((k * length, scale) for k, scale in enumerate(self.scales))

    def scale_at(self, epoch: int) -> float:
        """Return the scale of the input in an epoch of the phase, from 0."""
        return [scale for begin, scale in self.growth if begin <= epoch][-1]


@dataclass(frozen=True)
class Rates:
    """What a strategy uses where the user says nothing.

    Attributes:
        epochs: Passes over the training images, {task: number}.
        lr: Peak learning rate of new layers, {task: rate}.
        backbone_lr_share: Rate of pretrained layers as a share of `lr`.
    """

    epochs: dict[str, int]
    lr: dict[str, float]
    backbone_lr_share: float


RATES = {
    "random": Rates({"classify": 60, "segment": 60}, {"classify": 1e-3, "segment": 1e-3}, 1.0),
    "full": Rates({"classify": 15, "segment": 20}, {"classify": 1e-3, "segment": 1e-3}, 0.05),
    "frozen": Rates({"classify": 30, "segment": 16}, {"classify": 2e-3, "segment": 2e-3}, 0.0),
    "partial": Rates({"classify": 20, "segment": 16}, {"classify": 1e-3, "segment": 2e-3}, 0.05),
    "gradual": Rates({"classify": 30, "segment": 16}, {"classify": 2e-3, "segment": 2e-3}, 0.005),
}
GRADUAL_HEAD_PATIENCE = 5
GRADUAL_TUNE_SHARE = 0.1
"""Share of `epochs` that the second phase of `gradual` takes, at least one epoch."""

RESIZE_STEPS = 3
"""Sizes that the input grows through with `resize_from`, where there are as many epochs."""


def plan_phases(config: FinetuneConfig, task: str, stage_names: tuple[str, ...]) -> tuple[Phase, ...]:
    """Return the phases of a strategy on a backbone.

    Args:
        config: The user's wishes; None means the strategy's own value.
        task: `classify` or `segment`.
        stage_names: The backbone's stages, from the image up.

    Raises:
        ConfigError: If `freeze_through` names no stage or freezes all of them.

    References:
        Yosinski et al. 2014, arXiv:1411.1792 (frozen against fine-tuned lower layers);
        Howard & Ruder 2018, arXiv:1801.06146, section 3.3 (gradual unfreezing).
    """
    config = resolve_rates(config, task, stage_names)
    epochs, lr, share = config.epochs or 1, config.lr or 0.0, config.backbone_lr_share or 0.0
    stages = len(stage_names)

    def phase(name: str, first: int, length: int, scale: float = 1.0) -> Phase:
        scales = plan_scales(config.resize_from, length)
        return Phase(name, first, length, lr * scale, lr * share, config.patience, scales)

    if config.strategy == "frozen":
        return (phase("head", stages, epochs),)
    if config.strategy in ("random", "full"):
        return (phase("all layers", 0, epochs),)
    if config.strategy == "partial":
        first = first_trainable(config.freeze_through, stage_names)
        return (phase(f"from {stage_names[first]} on", first, epochs),)
    tune_epochs = max(1, round(epochs * GRADUAL_TUNE_SHARE))
    head_epochs = max(1, epochs - tune_epochs)
    head = Phase(
        "head", stages, head_epochs, lr, 0.0,
        config.patience or GRADUAL_HEAD_PATIENCE, plan_scales(config.resize_from, head_epochs),
    )  # fmt: skip
    tune = Phase("all layers, slowly", 0, tune_epochs, lr * share, lr * share, config.patience)
    return head, tune


def plan_scales(start: float, epochs: int) -> tuple[float, ...]:
    """Return the scales that the input of a phase grows through, the last of them 1.

    Args:
        start: The first; 1 for no growth.
        epochs: Of the phase, which must hold two scales at least.

    Raises:
        ConfigError: If there is one epoch only.

    References:
        Howard, fast.ai (progressive resizing); Tan & Le 2021, arXiv:2104.00298, section 4.2, of which the
        growing size is taken and the growing regularisation is not.
    """
    if start == 1:
        return (1.0,)
    steps = min(RESIZE_STEPS, epochs)
    if steps < 2:
        raise ConfigError(
            f"--resize-from {start:g}: in one epoch the input cannot grow",
            "Give it two --epochs or more, or leave --resize-from out.",
        )
    return tuple(start + (1 - start) * k / (steps - 1) for k in range(steps))


def resolve_rates(config: FinetuneConfig, task: str, stage_names: tuple[str, ...]) -> FinetuneConfig:
    """Return the config with the strategy's own numbers where the user gave none."""
    rates = RATES[config.strategy]
    freeze_through = config.freeze_through
    if config.strategy == "partial":
        freeze_through = stage_names[first_trainable(freeze_through, stage_names) - 1]
    share = config.backbone_lr_share
    return replace(
        config,
        epochs=config.epochs or rates.epochs[task],
        lr=config.lr or rates.lr[task],
        backbone_lr_share=rates.backbone_lr_share if share is None else share,
        freeze_through=freeze_through,
    )


def first_trainable(freeze_through: str | None, stage_names: tuple[str, ...]) -> int:
    """Return the index of the first stage that `partial` trains.

    Raises:
        ConfigError: If the name is no stage, or the last one, which would freeze everything.
    """
    if freeze_through is None:
        return len(stage_names) - 1
    if freeze_through not in stage_names:
        raise ConfigError(
            f"--freeze-through {freeze_through!r} is not a stage of the backbone",
            f"Its stages: {', '.join(stage_names)}.",
        )
    first = stage_names.index(freeze_through) + 1
    if first == len(stage_names):
        raise ConfigError(
            f"--freeze-through {freeze_through} freezes the whole backbone",
            "Use --strategy frozen, or a stage before it.",
        )
    return first


def learning_rate(step: int, steps: int, warmup_share: float) -> float:
    """Return the share of the peak rate at a step: linear warm-up, then cosine to 0.

    Args:
        step: Step in the phase, from 0.
        steps: Steps of the phase.
        warmup_share: Share of the steps in which the rate rises.

    References:
        Loshchilov & Hutter 2017, arXiv:1608.03983, eq. 5.
    """
    import math

    warmup = max(1, round(steps * warmup_share))
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
