"""A model, the two domains that it is adapted between, and how one method is to run on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch.nn.modules.batchnorm import _BatchNorm

from surgery.adapt.methods import METHODS, Method
from surgery.adapt.observe import Floats
from surgery.adapt.pairs import PairedFeed
from surgery.artifact.errors import ConfigError
from surgery.artifact.manifest import Manifest
from surgery.config import CUSTOM, AdaptConfig
from surgery.data.augment import Pipeline, choose_steps, keep_in_place
from surgery.data.table import Table
from surgery.data.targets import TargetSpec
from surgery.nets.assemble import Model
from surgery.train.feed import Feed
from surgery.train.strategies import Phase

NO_FREEZE = "none"
"""`--freeze-through none`: all stages learn."""
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
