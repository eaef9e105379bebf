"""One training of a study, through the engine that every other training goes through."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from surgery.artifact.errors import ConfigError
from surgery.nets.assemble import Model, build_model
from surgery.nets.weights import LoadedWeights
from surgery.study.memory import MemoryFeed
from surgery.study.pictures import Pictures
from surgery.train.checkpoint import newest_checkpoint
from surgery.train.device import make_accelerator
from surgery.train.engine import Loop
from surgery.train.feed import Batch
from surgery.train.losses import Loss, make_loss
from surgery.train.options import Options
from surgery.train.reporting import Reporter
from surgery.train.rule import Judgement, Losses, Update
from surgery.train.strategies import Phase
from surgery.train.supervised import Supervised
from surgery.train.validation import validate


@dataclass(frozen=True)
class Recipe:
    """How the trainings of a study learn, all of them alike.

    Attributes:
        epochs: Passes over the images.
        batch_size: Images per step.
        lr: Peak learning rate of what is new.
        kept_share: Rate of layers that came with weights, as a share of `lr`.
        weight_decay: AdamW's.
        dropout: Share dropped before the last layer.
        augment: `none`, or a preset.
        device: `auto`, `cpu` or `cuda`.
    """

    epochs: int
    batch_size: int = 64
    lr: float = 2e-3
    kept_share: float = 1.0
    weight_decay: float = 1e-2
    dropout: float = 0.0
    augment: str = "none"
    device: str = "auto"


@dataclass(frozen=True)
class Fitted:
    """What a training ended with; the model holds the weights of its last epoch.

    Attributes:
        accuracy: On the judged images, after each epoch that was judged; the last one always is.
        train_accuracy: On the training images and their labels as given; empty where it was not asked for.
        loss: Mean loss of the training steps of each epoch.
    """

    accuracy: list[float]
    train_accuracy: list[float]
    loss: list[float]


@dataclass(frozen=True)
class LastEpoch:
    """Learning from labels where the last epoch is what counts: nothing is chosen by the judged images.

    Attributes:
        epochs: Of the training.
        watches: Score both sides after each epoch, the training images plain; else only the judged ones,
            after the last epoch.
        enough: Share of the training images at which training may end.
        inner: What a step does.
    """

    epochs: int
    watches: bool = False
    enough: float | None = None
    inner: Supervised = field(default_factory=Supervised)
    companion: nn.Module | None = None
    tap: int | None = None

    def learn(self, batch: Batch, update: Update) -> Losses:
        """See `Rule`."""
        return self.inner.learn(batch, update)

    def judge(self, suffix: nn.Module, feed: Any, loss: Loss, batch_size: int, epoch: int) -> Judgement:
        """See `Rule`: a later epoch is always better, until enough is learnt; then none is."""
        if not self.watches and epoch < self.epochs:
            return Judgement(float(epoch), 0.0, {})
        scores, value = validate(suffix, feed, loss, max(batch_size, LOOKED))
        if not self.watches:
            return Judgement(float(epoch), value, scores.scores)
        share = score_train(suffix, feed, batch_size)
        if self.enough is not None and share >= self.enough:
            return Judgement(ENOUGH, 0.0, scores.scores, {"train": share})
        return Judgement(float(epoch), value, scores.scores, {"train": share})


ENOUGH = 1e9
"""Score of an epoch that has learnt enough: no later one is better, and the phase's patience ends it."""
LOOKED = 256
"""Images at once where nothing is learnt."""
LARGEST_LEAST = 256
"""Side, in pixels, up to which the least one that a network takes is looked for."""


@torch.inference_mode()
def score_train(suffix: nn.Module, feed: MemoryFeed, batch_size: int) -> float:
    """Return the share of the training images, plain, that get the label they are given."""
    right = 0
    for batch, _ in feed.look("train", max(batch_size, LOOKED)):
        right += int((suffix(batch.inputs, batch.size).argmax(1) == batch.targets).sum())
    return right / len(feed.pictures.train)


def make_network(
    network: str, classes: int, dropout: float, weights: LoadedWeights | None, seed: int
) -> Model:
    """Return a network with a new linear layer behind its pooled features.

    Args:
        network: A backbone.
        classes: To tell apart.
        dropout: Before the last layer.
        weights: Of the backbone; None: at random.
        seed: Of all that is new.
    """
    weights = weights or LoadedWeights(None, {})
    return build_model(network, "avg", "classify", classes, None, dropout, weights, seed)


def check_size(network: str, size: int) -> None:
    """Refuse images that are too small for a network, before anything is read or trained.

    Args:
        network: A backbone.
        size: Side of the square input, pixels.

    Raises:
        ConfigError: With the least side above it that the network takes.
    """
    model = make_network(network, 2, 0.0, None, 0).eval()
    if _takes(model, size):
        return
    least = next((side for side in range(size + 1, LARGEST_LEAST + 1) if _takes(model, side)), None)
    raise ConfigError(
        f"--image-size {size}: too small for {network}",
        f"--image-size {least} is the least it takes; smaller images are scaled up to it."
        if least
        else "Take another network.",
    )


@torch.inference_mode()
def _takes(model: Model, size: int) -> bool:
    """Tell whether a network answers an image of some side: torch says so of its own layers alone."""
    try:
        model(torch.zeros(1, size, size, 3, dtype=torch.uint8))
    except RuntimeError:
        return False
    return True


def fit(
    model: Model,
    pictures: Pictures,
    recipe: Recipe,
    first: int,
    seed: int,
    folder: Path,
    train_bn: bool = True,
    watches: bool = False,
    enough: float | None = None,
    cache_gib: float = 0.0,
    new_from: int | None = None,
) -> Fitted:
    """Train a model from stage `first` on; the stages before it do not change.

    A training that was killed goes on from the checkpoint that its folder holds.

    Args:
        model: Trained in place.
        pictures: What on.
        recipe: How.
        first: First stage that learns; the number of stages is the head alone.
        seed: Of order, dropout and augmentation.
        folder: Where checkpoints lie meanwhile.
        train_bn: Let the batch norm of stages that learn use and update the batch's statistics.
        watches: Score both sides after each epoch, not the judged images after the last one alone.
        enough: End when this share of the training images is learnt (with `watches`).
        cache_gib: Bound of the cache on disk for what is frozen; 0: none (see `MemoryFeed`).
        new_from: First stage that is new and learns at `recipe.lr`, as the head does; None: the kept share is
            that of all stages.
    """
    accelerator = make_accelerator(recipe.device, "fp32", trackers=())
    patience = 1 if enough is not None else None
    phase = Phase("study", first, recipe.epochs, recipe.lr, recipe.lr * recipe.kept_share, patience)
    options = Options(
        batch_size=recipe.batch_size,
        weight_decay=recipe.weight_decay,
        warmup_share=0.05,
        clip_norm=5.0,
        train_bn=train_bn,
        seed=seed,
        keep_checkpoints="1",
        checkpoint_minutes=5.0,
        new_from=new_from,
    )

    def open_feed(cut: int, scale: float) -> MemoryFeed:
        return MemoryFeed(model, cut, pictures, recipe.augment, seed, accelerator.device, cache_gib)

    loss = make_loss(open_feed(0, 1.0).targets.output)
    rule = LastEpoch(recipe.epochs, watches, enough)
    quiet = Reporter(Console(stderr=True, quiet=True))
    loop = Loop(model, (phase,), open_feed, loss, rule, options, accelerator, folder, quiet)
    outcome = loop.run(resume=newest_checkpoint(folder / "checkpoints") is not None)
    rows = outcome.history
    return Fitted(
        accuracy=[row["val"]["accuracy"] for row in rows if row["val"]],
        train_accuracy=[row["train"] for row in rows if "train" in row],
        loss=[row["train_loss"] for row in rows if row["train_loss"] is not None],
    )
