"""What a run is told, and what it ends with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Options:
    """How the loop runs, whatever it trains.

    Attributes:
        batch_size: Images per batch.
        weight_decay: AdamW's, for weights of two and more dimensions.
        warmup_share: Share of a phase's steps with a rising rate.
        clip_norm: Largest norm of the gradient.
        train_bn: Whether unfrozen batch norm updates its statistics.
        seed: Seed of dropout; order and views are the feed's.
        keep_checkpoints: A number or `all`.
        checkpoint_minutes: Longest time without a checkpoint.
        optimizer: One of `config.OPTIMIZERS`.
        momentum: Share of the mean gradient that stays at each step (β₁ of the Adam family).
        layer_decay: Rate of a stage as a share of the next one's.
        accumulate: Batches whose gradients are added up for one step.
        ema: Decay of the moving average of the weights, which is then what is scored and kept; 0 for none.
        start_counts: Whether the weights before training are kept where no epoch is better.
        new_from: Stages from this one on are new and learn at the rate of the head; None: none are.
    """

    batch_size: int
    weight_decay: float
    warmup_share: float
    clip_norm: float
    train_bn: bool
    seed: int
    keep_checkpoints: str
    checkpoint_minutes: float
    optimizer: str = "adamw"
    momentum: float = 0.9
    layer_decay: float = 1.0
    accumulate: int = 1
    ema: float = 0.0
    start_counts: bool = True
    new_from: int | None = None


@dataclass(frozen=True)
class Outcome:
    """What training ended with; the model holds the best weights.

    Attributes:
        before: Scores on val before the first step.
        best_epoch: Epoch whose weights were kept; 0 is before training.
        history: One row an epoch.
        seconds: Seconds trained, filling the cache and validation included.
        device: Kind of the device, `cpu` or `cuda`.
        precision: `fp32` or `bf16`, whatever the wish was.
    """

    before: dict[str, float]
    best_epoch: int
    history: list[dict[str, Any]]
    seconds: float
    device: str
    precision: str
