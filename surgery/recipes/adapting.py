"""What a run of adaptation is made of, put together: the feeds of both domains, the loop, the looks."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from surgery.adapt.criteria import proxy_distance
from surgery.adapt.maps import draw_plane
from surgery.adapt.methods import METHODS, Method
from surgery.adapt.norms import settle_norms
from surgery.adapt.observe import Floats, Observed, observe
from surgery.adapt.pairs import PairedFeed
from surgery.adapt.rule import Adaptation
from surgery.adapt.seen import to_rows
from surgery.artifact.errors import ConfigError
from surgery.artifact.manifest import Manifest
from surgery.config import CUSTOM, AdaptConfig
from surgery.data.augment import Pipeline, choose_steps, keep_in_place
from surgery.data.table import Table
from surgery.data.targets import TargetSpec
from surgery.nets.assemble import Model, seeded
from surgery.nets.backbone import set_trainable
from surgery.train.cache import fill_cache
from surgery.train.checkpoint import best_checkpoint, load_tensors
from surgery.train.cut import Suffix
from surgery.train.device import make_accelerator
from surgery.train.engine import Loop
from surgery.train.feed import Batch, Feed
from surgery.train.interrupt import raise_if_requested
from surgery.train.losses import make_loss
from surgery.train.optimizers import COMPANION
from surgery.train.options import Options, Outcome
from surgery.train.reporting import Reporter
from surgery.train.strategies import Phase

NO_FREEZE = "none"
"""`--freeze-through none`: all stages learn."""
OUTCOME_FILE = "outcome.json"
"""What a method ended with, in its folder."""
Views = tuple[str, Pipeline | None]
"""Name of an augmentation, and its steps where the name is `custom`."""


@dataclass(frozen=True)
class Domains:
    """A model, and what it is adapted from and to.

    Attributes:
        model: Restored from the parent; trained in place.
        parent: The parent's manifest.
        source: Labelled data.
        targets: Which of its classes are learnt.
        target: Images without labels.
        labelled: Images of the target with labels, in val, and how they map to the classes.
        prior: How often each class is the truth in the source's training images.
    """

    model: Model
    parent: Manifest
    source: Table
    targets: TargetSpec
    target: Table
    labelled: tuple[Table, TargetSpec] | None
    prior: Floats


@dataclass(frozen=True)
class Look:
    """What a model made of both domains at one moment.

    Attributes:
        source: Its val.
        target: The images that criteria are measured on.
        labelled: Those with labels, that nothing is chosen by.
        distance: Proxy A-distance of source and target.
        plane: Their embeddings in the plane.
    """

    source: Observed
    target: Observed
    labelled: Observed | None
    distance: float
    plane: dict[str, Any]


def choose_first(config: AdaptConfig, domains: Domains, method: Method) -> int:
    """Return the first stage that learns: what the parent's training froze stays so, but for the last stage.

    Raises:
        ConfigError: If `freeze_through` names no stage, or the whole backbone.
    """
    names = [stage.name for stage in domains.model.backbone.info]
    if method.measures or config.freeze_through == NO_FREEZE:
        return 0
    if config.freeze_through is None:
        begun = [int(phase["first"]) for phase in domains.parent.strategy["phases"]]  # none of early variants
        return min([len(names) - 1, *begun])
    if config.freeze_through not in names[:-1]:
        raise ConfigError(
            f"--freeze-through {config.freeze_through!r} leaves no stage that could be adapted",
            f"Choose from {', '.join([NO_FREEZE, *names[:-1]])}.",
        )
    return names.index(config.freeze_through) + 1


def choose_tap(config: AdaptConfig, domains: Domains, first: int) -> int:
    """Return the stage whose features the domains are compared by: the deepest one with a map of positions.

    Raises:
        ConfigError: If the stage that is asked for is none, or frozen.
    """
    model, given = domains.model, domains.parent.input
    info, deepest = model.backbone.info, max(model.head_stages)
    if config.tap is None:
        sides = [side for side in (given.width, given.height) if side]
        spread = [k for k in range(first, deepest + 1) if not sides or info[k].stride < min(sides)]
        return max(spread, default=deepest)
    learning = [info[k].name for k in range(first, deepest + 1)]
    if config.tap not in learning:
        raise ConfigError(
            f"--at {config.tap!r} is no stage that learns",
            f"Choose from {', '.join(learning)}, or freeze less with --freeze-through.",
        )
    return next(k for k, stage in enumerate(info) if stage.name == config.tap)


def choose_views(config: AdaptConfig, method: Method, task: str) -> tuple[Views, Views]:
    """Return how the images of source and target are augmented.

    A teacher looks at the plain image: of masks the student's view may not be moved against it.
    """
    masks = task == "segment"
    if config.augment == "auto":
        if not method.teaches:
            return ("none", None), ("none", None)
        still: Views = (CUSTOM, keep_in_place(choose_steps("domain", None, masks)))
        return still, still
    given: Views = (config.augment, config.pipeline)
    if not (masks and method.teaches) or config.augment == "none":
        return given, given
    steps = [] if config.augment == "flip" else keep_in_place(choose_steps(*given, masks))
    return given, (CUSTOM, steps) if steps else ("none", None)


def open_pairs(
    config: AdaptConfig, domains: Domains, method: Method, accelerator: Any, first: int
) -> PairedFeed:
    """Return the pairs for training from stage `first` on."""

    def open_feed(table: Table, targets: TargetSpec, views: Views) -> Feed:
        return Feed(
            model=domains.model,
            cut=first,
            table=table,
            input=domains.parent.input,
            targets=targets,
            augment=views[0],
            views=config.views if first > 0 else 0,
            seed=config.seed,
            device=accelerator.device,
            workers=config.workers,
            cache_gib=config.cache_gib,
            precision=accelerator.mixed_precision,
            autocast=accelerator.autocast,
            pipeline=views[1],
        )

    of_source, of_target = choose_views(config, method, domains.parent.task)
    labelled = domains.labelled
    return PairedFeed(
        open_feed(domains.source, domains.targets, of_source),
        open_feed(domains.target, domains.targets, of_target),
        open_feed(*labelled, ("none", None)) if labelled else None,
        method.teaches,
        method.measures,
    )


@dataclass(frozen=True)
class Plan:
    """How one method is to run.

    Attributes:
        name: Of the method.
        method: What it does.
        first: First stage that learns.
        tap: Stage whose features the domains are compared by.
        epochs: Passes over the source.
        strength: How much the target counts in the end.
        lr: Peak rate of the head.
        backbone_lr: Peak rate of the stages.
    """

    name: str
    method: Method
    first: int
    tap: int
    epochs: int
    strength: float
    lr: float
    backbone_lr: float

    @property
    def phase(self) -> Phase:
        """What the engine is to run."""
        return Phase(self.name, self.first, self.epochs, self.lr, self.backbone_lr, None)

    @property
    def place(self) -> tuple[int, int]:
        """What decides which features are looked at: the first stage that learns, and the compared one."""
        return self.first, self.tap

    def describe(self, domains: Domains) -> str:
        """Return the plan in words."""
        info = domains.model.backbone.info
        if self.method.measures:
            return f"{self.name}: {self.method.said}"
        learns = "all stages learn" if self.first == 0 else f"learns from {info[self.first].name} on"
        return (
            f"{self.name}: {self.method.said}; {learns}, {self.epochs} epochs, strength {self.strength:g}, "
            f"features of {info[self.tap].name}"
        )


@dataclass(frozen=True)
class Tried:
    """A method that has run.

    Attributes:
        plan: How.
        outcome: What it ended with.
        weights: The tensors of its best epoch, by their key in the model.
    """

    plan: Plan
    outcome: Outcome
    weights: dict[str, Tensor]

    @property
    def best(self) -> dict[str, Any]:
        """The row of its best epoch."""
        return next(row for row in self.outcome.history if row["epoch"] == self.outcome.best_epoch)

    def gain(self, criterion: str) -> float:
        """Return by how much a criterion is higher than of the parent."""
        return float(self.best["criteria"][criterion] - self.outcome.history[0]["criteria"][criterion])


def plan(config: AdaptConfig, domains: Domains, name: str) -> Plan:
    """Return how a method is to run.

    Raises:
        ConfigError: If it cannot be used here.
    """
    method, parent = METHODS[name], domains.parent
    if parent.task not in method.tasks:
        raise ConfigError(f"--method {name} is for {', '.join(method.tasks)}, not for {parent.task}")
    if method.measures and not any(isinstance(m, _BatchNorm) for m in domains.model.modules()):
        raise ConfigError(
            f"--method {name} measures batch norm, and {domains.model.backbone.name} has none",
            "Take another method, such as dann or self-training.",
        )
    first = choose_first(config, domains, method)
    own = method.mask_strength if parent.task == "segment" else method.strength
    strength = own if config.strength is None else config.strength
    epochs = 1 if method.measures else config.epochs or 1
    share = config.backbone_lr_share
    rates = (config.lr, config.lr * (1.0 if share is None else share))
    return Plan(name, method, first, choose_tap(config, domains, first), epochs, strength, *rates)


def try_method(
    config: AdaptConfig, domains: Domains, chosen: Plan, folder: Path, resume: bool, report: Reporter
) -> Tried:
    """Run a method from the model as it is; one that has ended in this folder is not run again."""
    folder.mkdir(exist_ok=True)
    ended = folder / OUTCOME_FILE
    if resume and ended.exists():
        outcome = Outcome(**json.loads(ended.read_text("utf-8")))
    else:
        accelerator = make_accelerator(config.device, config.precision, folder, config.trackers)
        if chosen.method.measures:
            settle(config, domains, chosen, accelerator, report)
        loop = build_adaptation(config, domains, chosen, accelerator, folder, report)
        outcome = loop.run(resume)
        accelerator.end_training()
        raise_if_requested()
        aside = ended.with_suffix(".part")
        aside.write_text(json.dumps(dataclasses.asdict(outcome)) + "\n", "utf-8")
        aside.replace(ended)
    kept = load_tensors(best_checkpoint(folder / "checkpoints", outcome.best_epoch))
    beside = f"{COMPANION}."
    return Tried(chosen, outcome, {k: v for k, v in kept.items() if not k.startswith(beside)})


def settle(config: AdaptConfig, domains: Domains, chosen: Plan, accelerator: Any, report: Reporter) -> None:
    """Have batch norm hold the statistics of the source, whose place those of the target are to take."""
    model, batch_size = domains.model, config.batch_size or 1
    model.to(accelerator.device).to(memory_format=torch.channels_last)
    feed = open_pairs(config, domains, chosen.method, accelerator, chosen.first)
    suffix = Suffix(model, chosen.first).eval()
    try:
        with report.task("measuring batch norm on the source") as task:
            total = len(feed.source.order(0, batch_size))

            def batches() -> Iterator[Batch]:
                for k, batch in enumerate(feed.source.epoch(0, batch_size)):
                    yield batch
                    task.update(k + 1, total)
                    raise_if_requested()

            settle_norms(model, lambda batch: suffix(batch.inputs, batch.size), batches())
    finally:
        feed.close()


def build_adaptation(
    config: AdaptConfig, domains: Domains, chosen: Plan, accelerator: Any, folder: Path, report: Reporter
) -> Loop:
    """Return the loop of a method; nothing is computed yet."""
    method, model, output = chosen.method, domains.model, domains.targets.output
    with seeded(config.seed):
        width = _row_width(domains, chosen.tap)
        companion = method.build(width, len(output.classes)) if method.build else None
    rule = Adaptation(
        method,
        output,
        chosen.tap,
        companion,
        chosen.strength,
        config.confidence,
        domains.prior,
        config.choose_by,
    )
    options = Options(
        batch_size=config.batch_size or 1,
        weight_decay=config.weight_decay,
        warmup_share=config.warmup_share,
        clip_norm=config.clip_norm,
        train_bn=False,
        seed=config.seed,
        keep_checkpoints=config.keep_checkpoints,
        checkpoint_minutes=config.checkpoint_minutes,
        momentum=method.momentum,
        ema=config.ema if method.teaches else 0.0,
        start_counts=False,  # of an adapted model; whether it is better than its parent is told
    )

    def open_feed(first: int, scale: float) -> PairedFeed:
        return open_pairs(config, domains, method, accelerator, first)

    loss = make_loss(output)
    return Loop(model, (chosen.phase,), open_feed, loss, rule, options, accelerator, folder, report)


def look(config: AdaptConfig, domains: Domains, chosen: Plan, accelerator: Any, report: Reporter) -> Look:
    """Look at both domains with the model as it is now."""
    model, loss = domains.model, make_loss(domains.targets.output)
    model.to(accelerator.device).to(memory_format=torch.channels_last)
    set_trainable(model.backbone, chosen.first)
    feed = open_pairs(config, domains, chosen.method, accelerator, chosen.first)
    try:
        fill_cache(feed, report)
        suffix = Suffix(model, chosen.first, chosen.tap).eval()

        def ask(*given: Any) -> Any:
            with accelerator.autocast():  # around the network alone: what is cached has a type of its own
                return suffix(*given)

        found = [observe(ask, part, loss, config.batch_size or 1) for part in feed.parts]
    finally:
        feed.close()
    source, target = (each.embeddings for each in found[:2])
    return Look(
        found[0],
        found[1],
        found[2] if len(found) > 2 else None,
        proxy_distance(source, target),
        draw_plane(source, target, config.seed),
    )


@torch.no_grad()
def _row_width(domains: Domains, tap: int) -> int:
    """Return the number of values of a row of features."""
    model, given = domains.model, domains.parent.input
    if domains.parent.task == "segment":
        return model.backbone.info[tap].channels
    place = next(model.parameters()).device
    images = torch.zeros(1, given.height or 1, given.width or 1, 3, dtype=torch.uint8, device=place)
    _, maps = model.backbone.run(model.normalise(images), 0, tap + 1)
    return to_rows(maps[tap], masks=False).shape[1]
