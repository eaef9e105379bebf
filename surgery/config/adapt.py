"""Every option of a run of adaptation, as one dataclass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from surgery.artifact.errors import ConfigError
from surgery.config.checks import augment_problems, range_problems, tracker_problems, word_problems
from surgery.config.choices import CRITERIA, METHODS


@dataclass(frozen=True)
class AdaptConfig:
    """All that `surgery adapt` needs to repeat a run. `None` and "auto" are filled in by the run."""

    model: str
    """The model that is adapted, NAME@VERSION of the store."""
    target: tuple[str, ...]
    """Folders of images without labels, or image files."""
    name: str
    """Name of the variant in the store."""
    target_spool: bool = False
    """Adapt to the images that a service kept as novel to the model, too. A run takes them into a folder of
    its own, which stands in `target` then."""
    source: str = ""
    """Folder of labelled data, or the file that lists it; empty is what the model was trained on."""
    methods: tuple[str, ...] = ()
    """How to adapt; empty is `dann` for labels and `self-training` for masks. Of several the one is stored
    that has most of what `choose_by` measures."""
    choose_by: str = CRITERIA[0]
    """What chooses the epoch, and the method of several: a measure that needs no labels of the target."""
    labels: str | None = None
    """Labelled data of the target domain. It is scored for the report, and nothing is chosen by it."""
    skip_bad: bool = False
    """Go without the images that cannot be read instead of stopping."""
    freeze_through: str | None = None
    """Last frozen stage, by name, or `none`; None freezes what the model's own training froze, but
    never the last stage."""
    tap: str | None = None
    """Stage whose features the domains are compared by; None is the deepest one with a map of positions."""
    strength: float | None = None
    """How much the target counts in the end; None is the method's own."""
    confidence: float = 0.9
    """Probability from which a pseudo-label counts (self-training)."""
    augment: str = "auto"
    """As for `finetune`; auto is `none`, and for self-training `domain` without its moves. Where masks have
    a teacher, only steps that move no pixel are applied to the target."""
    pipeline: tuple[dict[str, Any], ...] | None = None
    """The steps of a file of the user's; `augment` is `custom` then."""
    views: int = 2
    """Views per image that are kept where a part is frozen; 0 draws a new one every epoch."""
    epochs: int | None = None
    """Passes over the source's training images; None is 20 for labels and 10 for masks."""
    batch_size: int | None = None
    """Images of each domain per step; None is 32 for labels and 4 for masks."""
    lr: float = 5e-4
    """Peak learning rate of head and domain classifier."""
    backbone_lr_share: float | None = None
    """Learning rate of the stages that learn as a share of `lr`; None is 1 where the first of the model's
    ancestors began at random, else 0.1: what transfers is not thrown away by the first steps of a game."""
    weight_decay: float = 1e-2
    """AdamW's decoupled weight decay."""
    warmup_share: float = 0.05
    """Share of the steps in which the rate rises from 0 to its peak."""
    clip_norm: float = 1.0
    """Largest norm of the gradient."""
    ema: float = 0.99
    """Decay of the average of the weights that is the teacher of self-training."""
    seed: int = 0
    """Seed of everything random."""
    device: str = "auto"
    """`auto`, `cpu` or `cuda`."""
    precision: str = "auto"
    """`fp32`, `bf16`; auto is bf16 on a GPU that has it, else fp32."""
    cache_gib: float = 10.0
    """Bound on the activation cache on disk, GiB; 0 turns it off."""
    workers: int = 2
    """Threads that read and transform images."""
    trackers: tuple[str, ...] = ("tensorboard",)
    """Where scores and losses are logged: `tensorboard`, `mlflow`, `wandb`, or several of them."""
    keep_checkpoints: str = "2"
    """How many of the newest checkpoints stay: a number or `all`. The best one stays anyway."""
    checkpoint_minutes: float = 5.0
    """A checkpoint is written after every epoch, and within one when this long has passed."""

    def __post_init__(self) -> None:
        found = [
            *word_problems(self),
            *augment_problems(self),
            *range_problems(self),
            *tracker_problems(self),
        ]
        found += [
            f"--method {name!r} is not one of {', '.join(METHODS)}"
            for name in self.methods
            if name not in METHODS
        ]
        if len(set(self.methods)) != len(self.methods):
            found.append(f"--method {','.join(self.methods)!r}: name one method, or several that differ")
        if self.ema == 0:
            found.append("--ema 0 is an average of nothing: the teacher of self-training takes 0.9 to 0.999")
        if not self.target and not self.target_spool:
            found.append("--target is missing: name a folder of images, or give --target-spool")
        if found:
            raise ConfigError("\n".join(found), "See `surgery adapt --help`.")
