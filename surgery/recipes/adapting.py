"""A method of adaptation run: the loop, and what a model makes of both domains before and after."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from surgery.adapt.criteria import proxy_distance
from surgery.adapt.maps import draw_plane
from surgery.adapt.norms import settle_norms
from surgery.adapt.observe import Observed, observe
from surgery.adapt.pairs import PairedFeed
from surgery.adapt.rule import Adaptation
from surgery.adapt.seen import to_rows
from surgery.config import AdaptConfig
from surgery.nets.assemble import seeded
from surgery.nets.backbone import set_trainable
from surgery.recipes.domains import Domains, Plan, open_pairs
from surgery.train.cache import fill_cache
from surgery.train.checkpoint import best_checkpoint, load_tensors
from surgery.train.cut import Suffix
from surgery.train.device import make_accelerator
from surgery.train.engine import Loop
from surgery.train.feed import Batch
from surgery.train.interrupt import raise_if_requested
from surgery.train.losses import make_loss
from surgery.train.optimizers import COMPANION
from surgery.train.options import Options, Outcome
from surgery.train.reporting import Reporter

OUTCOME_FILE = "outcome.json"
"""What a method ended with, in its folder."""


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
