"""What a run is made of, put together: the loop, and the range test that finds its rate."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surgery.artifact.errors import TrainingError
from surgery.artifact.manifest import InputSpec
from surgery.config import FinetuneConfig
from surgery.data.table import Table
from surgery.data.targets import TargetSpec
from surgery.nets.assemble import Model
from surgery.train.batch_size import bound_batch, measure_batch
from surgery.train.device import make_accelerator
from surgery.train.engine import Loop
from surgery.train.feed import Feed
from surgery.train.losses import make_loss
from surgery.train.lr_range import RangeTest, measure_rates
from surgery.train.options import Options
from surgery.train.reporting import Reporter
from surgery.train.run import unfinished_config
from surgery.train.strategies import Phase, plan_phases
from surgery.train.supervised import Supervised
from surgery.train.team import Team


@dataclass(frozen=True)
class Material:
    """What is trained, on what."""

    model: Model
    table: Table
    targets: TargetSpec
    input: InputSpec
    class_weights: list[float] | None


def build_loop(
    config: FinetuneConfig,
    material: Material,
    phases: tuple[Phase, ...],
    accelerator: Any,
    folder: Path,
    report: Reporter,
) -> Loop:
    """Return the training loop of a resolved config; nothing is computed yet."""
    model = material.model
    open_feed_from = functools.partial(open_feed, config, material, accelerator)
    options = Options(
        batch_size=config.batch_size or 1,
        weight_decay=config.weight_decay,
        warmup_share=config.warmup_share,
        clip_norm=config.clip_norm,
        train_bn=config.train_bn or config.weights == "random",
        seed=config.seed,
        keep_checkpoints=config.keep_checkpoints,
        checkpoint_minutes=config.checkpoint_minutes,
        optimizer=config.optimizer,
        layer_decay=config.layer_decay,
        accumulate=config.accumulate,
        ema=config.ema,
    )
    model.backbone.recompute = config.recompute
    loss = make_loss(material.targets.output, config.label_smoothing, config.loss, material.class_weights)
    rule = Supervised(config.mixup, config.cutmix, config.seed, model.backbone.channels_last)
    return Loop(model, phases, open_feed_from, loss, rule, options, accelerator, folder, report)


def open_feed(
    config: FinetuneConfig, material: Material, accelerator: Any, first: int, scale: float = 1.0
) -> Feed:
    """Return the batches for training from stage `first` on, at a scale of the input."""
    return Feed(
        model=material.model,
        cut=first,
        table=material.table,
        input=material.input,
        targets=material.targets,
        augment=config.augment,
        views=config.views if first > 0 else 0,
        seed=config.seed,
        device=accelerator.device,
        workers=config.workers,
        cache_gib=config.cache_gib,
        precision=accelerator.mixed_precision,
        autocast=accelerator.autocast,
        sampler=config.sampler,
        pipeline=config.pipeline,
        rank=accelerator.process_index,
        ranks=accelerator.num_processes,
        scale=scale,
    )


def find_batch(
    config: FinetuneConfig,
    material: Material,
    stages: tuple[str, ...],
    usual: int,
    resume: bool,
    report: Reporter,
) -> FinetuneConfig:
    """Return the config with the largest batch that a GPU's memory holds; without a GPU the usual one.

    A run that is resumed keeps the batch it was begun with. With several processes the number is that of
    all of them together, as many as the one with the least room holds each. The rate is left alone.

    Raises:
        TrainingError: If not even one image fits.
    """
    begun = unfinished_config(config.name) if resume else None
    if begun and begun.get("batch_rule") == "auto":
        return dataclasses.replace(config, batch_size=begun["batch_size"])
    accelerator = make_accelerator(config.device, config.precision)
    if accelerator.device.type != "cuda":
        report.line(f"--batch-size auto: {usual}, the default: there is no GPU whose memory would bound it")
        return dataclasses.replace(config, batch_size=usual)
    phases = plan_phases(config, material.table.task, stages)
    loop = build_loop(config, material, phases, accelerator, Path(), report)
    team = Team(accelerator)
    bound = bound_batch(len(material.table.of("train")), config.accumulate, usual)
    each = team.least(measure_batch(loop, max(1, bound // team.size)))
    if not each:
        raise TrainingError(
            "--batch-size auto: not even one image fits into the memory of the GPU",
            "Take smaller images, --recompute, or --strategy frozen.",
        )
    size = each * team.size
    why = "twice as many do not fit" if 2 * size <= bound else "an epoch would have too few steps of more"
    report.line(f"--batch-size auto: {size}, {why}; the rate is not changed (--lr auto measures one for it)")
    return dataclasses.replace(config, batch_size=size)


def find_rate(
    config: FinetuneConfig, material: Material, stages: tuple[str, ...], resume: bool, report: Reporter
) -> tuple[FinetuneConfig, RangeTest | None]:
    """Return the config with the rate that a range test chose, and the test.

    A run that is resumed keeps the rate it was begun with; no test is made.
    """
    begun = unfinished_config(config.name) if resume else None
    if begun and begun.get("lr_rule") == "range":
        return dataclasses.replace(config, lr=begun["lr"]), None
    phases = plan_phases(config, material.table.task, stages)
    accelerator = make_accelerator(config.device, config.precision)
    loop = build_loop(config, material, phases, accelerator, Path(), report)
    tested = Team(accelerator).share(measure_rates(loop))
    report.line(f"--lr auto: {tested.chosen:.2g}, of {len(tested.rates)} rates up to {tested.rates[-1]:.2g}")
    return dataclasses.replace(config, lr=tested.chosen), tested
