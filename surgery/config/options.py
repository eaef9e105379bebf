"""Every option of a run, as one dataclass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from surgery.artifact.errors import ConfigError
from surgery.config.checks import find_problems


@dataclass(frozen=True)
class FinetuneConfig:
    """All that `surgery finetune` needs to repeat a run. `None` and "auto" are filled in by `resolve`."""

    data: str
    """Folder of the data set, or the file that lists it."""
    name: str
    """Name of the model in the store."""
    task: str | None = None
    """`classify` or `segment`; None reads it from the layout of the data."""
    format: str | None = None
    """How the data lies on disk, one of `FORMATS`; None finds it out."""
    classes: tuple[str, ...] = ()
    """Classes to learn; empty means all. For masks the others become one class, the rest."""
    ignore: tuple[str, ...] = ()
    """Classes left out of loss and metrics (masks only)."""
    skip_bad: bool = False
    """Train without the images that cannot be read instead of stopping."""
    val_share: float = 0.2
    """Share of the images drawn for validation where the data brings no split, 0–1."""
    backbone: str = "vgg16"
    """Name of the backbone in timm."""
    head: str | None = None
    """Head; None is `avg` for classification and `deconv` for masks."""
    stages: tuple[str, ...] = ()
    """Backbone stages the head reads, by name; empty is the head's own choice."""
    dropout: float = 0.0
    """Dropout before a pooled head's linear layer, 0–1."""
    weights: str = "imagenet"
    """`imagenet`, `hub`, `random`, a file, or a model of the store."""
    strategy: str = "frozen"
    """Which layers learn, and when."""
    classifiers: tuple[str, ...] = ()
    """What `classical` chooses from, of `CLASSIFIERS`; empty is all of them."""
    folds: int = 5
    """Parts of train that `classical` leaves out one by one to choose its classifier."""
    freeze_through: str | None = None
    """Last frozen stage of `partial`, by name; None is the last but one."""
    train_bn: bool = False
    """Let unfrozen pretrained batch norm update its statistics (random weights always do)."""
    image_size: tuple[int, int] | None = None
    """(width, height) in pixels; None is 224×224 for classification, the images' own for masks."""
    resize_from: float = 1.0
    """Progressive resizing: share of the input's sides at which training begins, 0.1–1; 1 trains at the
    full size from the start. The first phase grows from it in three steps of equally many epochs."""
    augment: str = "auto"
    """`none`, `flip`, `light`, `medium`, `heavy`, `domain`, or a file with a pipeline of one's own; auto is
    `flip` for masks and `light` for classification."""
    pipeline: tuple[dict[str, Any], ...] | None = None
    """The steps of that file, each `{TransformName: {argument: value}}`; `augment` is `custom` then, and
    the file is not read again."""
    views: int = 2
    """Views per image (one plain, the others augmented) that a phase with a frozen part computes
    once and reuses; 0 draws a new one every epoch, as phases without a frozen part always do."""
    epochs: int | None = None
    """Passes over the training images; None is the strategy's own number."""
    batch_size: int | None = None
    """Images per step; None is 32 for classification and 4 for masks."""
    batch_rule: str = "given"
    """`auto`: where `batch_size` is None, the largest that a GPU's memory holds (`--batch-size auto`)."""
    lr: float | None = None
    """Peak learning rate of the new layers; None is the strategy's own."""
    lr_rule: str = "given"
    """`range`: where `lr` is None, a range test on the training images finds it (`--lr auto`)."""
    backbone_lr_share: float | None = None
    """Learning rate of pretrained layers as a share of `lr`; None is the strategy's own."""
    weight_decay: float = 1e-2
    """AdamW's decoupled weight decay (biases and norms are left out)."""
    warmup_share: float = 0.05
    """Share of each phase's steps in which the learning rate rises from 0 to its peak."""
    label_smoothing: float = 0.0
    """Share of the target spread over all classes (classification), 0–1."""
    clip_norm: float = 1.0
    """Largest norm of the gradient."""
    loss: str | None = None
    """`ce` or `focal`; for masks also `dice` and `lovasz`, and sums such as `ce+lovasz`. None is `ce` for
    classification and `ce+dice` for masks."""
    class_weights: str = "none"
    """`balanced`: rare classes count more in `ce` and `focal`, by their frequency in train."""
    sampler: str = "uniform"
    """`balanced`: images are drawn so that the classes are equally frequent (classification)."""
    mixup: float = 0.0
    """Mixup's alpha (classification); 0 is none, 0.2 is usual."""
    cutmix: float = 0.0
    """CutMix's alpha (classification); 0 is none, 1 is usual."""
    optimizer: str = "adamw"
    """`adamw`, `nadamw`, `sgd` (Nesterov, momentum 0.9) or `lion`."""
    layer_decay: float = 1.0
    """Rate of a backbone stage as a share of the next one's, 0–1; 1 gives all the same."""
    accumulate: int = 1
    """Batches whose gradients make one step together."""
    ema: float = 0.0
    """Decay of a moving average of the weights, which is then what is scored and stored; 0 is none, 0.99
    to 0.9999 are usual."""
    test_flips: bool = False
    """Answer with the mean over an image and its mirror image: better masks, at twice the cost."""
    recompute: bool = False
    """Gradient checkpointing: keep less of the backbone in memory and compute it twice."""
    patience: int | None = None
    """Epochs without a better validation score before a phase ends; None never ends early,
    except the first phase of `gradual` (5)."""
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
        problems = list(find_problems(self))
        if problems:
            raise ConfigError("\n".join(problems), "See `surgery finetune --help`.")
