"""Every config dataclass, its checks, and its YAML form (`recipe.yaml`)."""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from surgery.artifact.errors import ConfigError, UserError

TASKS = ("classify", "segment")
STRATEGIES = ("random", "full", "frozen", "partial", "gradual", "classical")
CLASSIFIERS = ("logistic", "linear-svm", "rbf-svm", "forest", "knn", "vote", "stack")
"""What `classical` compares; the last two are made of the others."""
GRADIENT_ONLY = (
    "epochs", "lr", "lr_rule", "backbone_lr_share", "freeze_through", "train_bn", "dropout", "batch_size",
    "batch_rule", "resize_from",
    "weight_decay", "warmup_share", "label_smoothing", "clip_norm", "loss", "sampler", "mixup", "cutmix",
    "optimizer", "layer_decay", "accumulate", "ema", "recompute", "patience",
)  # fmt: skip
"""Fields that mean something only where weights are learnt step by step."""
DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "fp32", "bf16")
TRACKERS = ("tensorboard", "mlflow", "wandb")
OPTIMIZERS = ("adamw", "nadamw", "sgd", "lion")
LABEL_LOSSES = ("ce", "focal")
MASK_LOSSES = ("ce", "focal", "dice", "lovasz")
SAMPLERS = ("uniform", "balanced")
CLASS_WEIGHTS = ("none", "balanced")
DEPENDENTS = {
    "data": ("task", "format", "image_size"),
    "backbone": ("stages", "freeze_through"),
    "head": ("stages",),
    "strategy": ("freeze_through", "epochs", "lr", "backbone_lr_share", "batch_size", "classifiers", "folds"),
    "lr_rule": ("lr",),
    "augment": ("pipeline",),
}
"""Fields that a run works out from another one where the user leaves them open."""
FORMATS = ("yolo", "coco", "voc", "carvana", "pairs", "csv", "folders")
"""How data may lie on disk; `surgery.data.formats` reads them."""
AUGMENTATIONS = ("none", "flip", "light", "medium", "heavy", "domain")
CUSTOM = "custom"
"""`augment` of a run whose steps stand in `pipeline`."""
PIPELINE_FILES = (".yaml", ".yml", ".json")


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
        problems = list(_problems(self))
        if problems:
            raise ConfigError("\n".join(problems), "See `surgery finetune --help`.")


def _problems(config: FinetuneConfig) -> list[str]:
    found: list[str] = []

    def one_of(field: str, allowed: tuple[str, ...]) -> None:
        value = getattr(config, field)
        if value is not None and value not in allowed:
            near = difflib.get_close_matches(str(value), allowed, 1)
            guess = f" (nearest: {near[0]})" if near else ""
            found.append(f"{_flag(field)} {value!r} is not one of {', '.join(allowed)}{guess}")

    def within(field: str, low: float, high: float) -> None:
        value = getattr(config, field)
        if value is not None and not low <= value <= high:
            found.append(f"{_flag(field)} {value} is outside {low}–{high}")

    one_of("task", TASKS)
    one_of("format", FORMATS)
    one_of("strategy", STRATEGIES)
    one_of("device", DEVICES)
    one_of("precision", PRECISIONS)
    one_of("optimizer", OPTIMIZERS)
    one_of("lr_rule", ("given", "range"))
    one_of("batch_rule", ("given", "auto"))
    one_of("sampler", SAMPLERS)
    one_of("class_weights", CLASS_WEIGHTS)
    found.extend(_augment_problems(config))
    found.extend(_classical_problems(config))
    within("folds", 2, 100)
    within("val_share", 0.01, 0.9)
    within("dropout", 0.0, 0.95)
    within("resize_from", 0.1, 1.0)
    within("warmup_share", 0.0, 0.9)
    within("label_smoothing", 0.0, 0.9)
    within("views", 0, 1000)
    within("epochs", 1, 100_000)
    within("batch_size", 1, 65_536)
    within("lr", 1e-9, 100.0)
    within("backbone_lr_share", 0.0, 10.0)
    within("weight_decay", 0.0, 10.0)
    within("clip_norm", 1e-6, 1e6)
    within("mixup", 0.0, 100.0)
    within("cutmix", 0.0, 100.0)
    within("layer_decay", 0.01, 1.0)
    within("accumulate", 1, 65_536)
    within("ema", 0.0, 0.999999)
    within("patience", 1, 100_000)
    within("cache_gib", 0.0, 1e6)
    within("workers", 1, 256)
    within("checkpoint_minutes", 0.01, 1e5)
    if config.image_size is not None and not all(1 <= side <= 16_384 for side in config.image_size):
        found.append(f"--image-size {config.image_size} is outside 1–16384 pixels a side")
    keep = config.keep_checkpoints
    if keep != "all" and not (keep.isdecimal() and int(keep) >= 1):
        found.append(f"--keep-checkpoints {keep!r} is neither a number from 1 on nor `all`")
    for tracker in config.trackers:
        if tracker not in TRACKERS:
            found.append(f"--tracker {tracker!r} is not one of {', '.join(TRACKERS)}")
    for part in config.loss.split("+") if config.loss is not None else ():
        if part not in MASK_LOSSES:
            found.append(f"--loss {config.loss!r}: {part!r} is not one of {', '.join(MASK_LOSSES)}")
    if config.freeze_through is not None and config.strategy != "partial":
        found.append(f"--freeze-through goes with --strategy partial, not {config.strategy}")
    if config.strategy == "random" and config.weights not in ("imagenet", "random"):
        found.append(f"--strategy random starts from no weights, but --weights is {config.weights}")
    return found


def _classical_problems(config: FinetuneConfig) -> list[str]:
    found = [
        f"--classifiers: {name!r} is not one of {', '.join(CLASSIFIERS)}"
        for name in config.classifiers
        if name not in CLASSIFIERS
    ]
    defaults = {field.name: field.default for field in dataclasses.fields(FinetuneConfig)}
    if config.strategy != "classical":
        given = [name for name in ("classifiers", "folds") if getattr(config, name) != defaults[name]]
        found += [f"{_flag(name)} goes with --strategy classical, not {config.strategy}" for name in given]
        return found
    given = [name for name in GRADIENT_ONLY if getattr(config, name) != defaults[name]]
    rules = {"lr_rule": "--lr auto", "batch_rule": "--batch-size auto"}
    spelled = dict.fromkeys(rules.get(name) or _flag(name) for name in given)
    found += [f"{flag} is for training by steps, which --strategy classical does not do" for flag in spelled]
    if config.views == 0:
        found.append("--views 0 draws new views every epoch; --strategy classical has none: take 1 or more")
    return found


def _augment_problems(config: FinetuneConfig) -> list[str]:
    augment, allowed = config.augment, ("auto", *AUGMENTATIONS)
    if augment == CUSTOM:
        return [] if config.pipeline else ["--augment custom has no steps: name a file, or give `pipeline`"]
    found = [] if config.pipeline is None else [f"pipeline goes with augment {CUSTOM}, not {augment!r}"]
    if augment not in allowed and not augment.lower().endswith(PIPELINE_FILES):
        near = difflib.get_close_matches(augment, allowed, 1)
        guess = f" (nearest: {near[0]})" if near else ""
        choice = f"{', '.join(allowed)}, nor a file ending in {', '.join(PIPELINE_FILES)}"
        found.append(f"--augment {augment!r} is none of {choice}{guess}")
    return found


def _flag(field: str) -> str:
    return "--" + field.replace("_", "-")


def check_task(config: FinetuneConfig, task: str) -> None:
    """Refuse options that the task does not know.

    Raises:
        ConfigError: With all of them.
    """
    found = []
    if task == "segment":
        given = [field for field in ("label_smoothing", "mixup", "cutmix") if getattr(config, field)]
        found += [f"{_flag(field)} is for classification" for field in given]
        if config.sampler != "uniform":
            found.append(f"--sampler {config.sampler} is for classification; masks have --class-weights")
    elif config.loss is not None and config.loss not in LABEL_LOSSES:
        found.append(f"--loss {config.loss} is for masks; labels have {', '.join(LABEL_LOSSES)}")
    if task == "segment" and config.strategy == "classical":
        found.append("--strategy classical is for classification")
    if config.class_weights != "none" and config.loss and not {"ce", "focal"} & set(config.loss.split("+")):
        found.append(f"--class-weights {config.class_weights}: --loss {config.loss} weighs no class")
    if found:
        raise ConfigError("\n".join(found), "Leave these out.")


def parse_rate(text: str) -> dict[str, Any]:
    """Return the fields that `--lr` stands for: a number, or `auto`.

    Raises:
        ConfigError: If it is neither.
    """
    if text == "auto":
        return {"lr_rule": "range"}
    try:
        return {"lr": float(text), "lr_rule": "given"}
    except ValueError:
        raise ConfigError(f"--lr {text!r} is neither a number nor auto", "For example 0.001.") from None


def parse_batch(text: str) -> dict[str, Any]:
    """Return the fields that `--batch-size` stands for: a number, or `auto`.

    Raises:
        ConfigError: If it is neither.
    """
    if text == "auto":  # over a recipe's number too: it may be another machine's
        return {"batch_size": None, "batch_rule": "auto"}
    if text.isdecimal():
        return {"batch_size": int(text), "batch_rule": "given"}
    raise ConfigError(f"--batch-size {text!r} is neither a number nor auto", "For example 32.")


def parse_size(text: str) -> tuple[int, int]:
    """Return (width, height) in pixels from `N` or `WxH`.

    Raises:
        ConfigError: If the text is neither.
    """
    parts = text.lower().replace("×", "x").split("x")
    if len(parts) in (1, 2) and all(part.strip().isdecimal() for part in parts):
        sides = [int(part) for part in parts]
        return sides[0], sides[-1]
    raise ConfigError(f"--image-size {text!r} is neither N nor WxH", "For example 224 or 480x360.")


def to_dict(config: FinetuneConfig) -> dict[str, Any]:
    """Return the config as plain values, in the order of its fields."""
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in dataclasses.asdict(config).items()
    }


def from_dict(values: dict[str, Any], where: str = "recipe") -> FinetuneConfig:
    """Return a config from plain values; all mistakes are reported at once.

    Raises:
        ConfigError: If a field is unknown, missing or of the wrong type.
    """
    hints = get_type_hints(FinetuneConfig)
    problems: list[str] = []
    clean: dict[str, Any] = {}
    for key, value in values.items():
        if key not in hints:
            near = difflib.get_close_matches(key, hints, 1)
            guess = f" (nearest: {near[0]})" if near else ""
            problems.append(f"{where}: there is no field {key!r}{guess}")
            continue
        clean[key] = tuple(value) if isinstance(value, list) else value
        if not _fits(clean[key], hints[key]):
            problems.append(f"{where}: {key} is {value!r}, which is not {_spell(hints[key])}")
    for key in ("data", "name"):
        if key not in values:
            problems.append(f"{where}: {key!r} is missing")
    if problems:
        raise ConfigError("\n".join(problems), "A run needs DATA and --name NAME, or a recipe of a run.")
    return FinetuneConfig(**clean)


def _fits(value: Any, hint: Any) -> bool:
    if get_origin(hint) is dict:
        return isinstance(value, dict)
    options = get_args(hint) if not _is_tuple(hint) else ()
    if options:
        return any(_fits(value, option) for option in options)
    if _is_tuple(hint):
        kinds = [kind for kind in get_args(hint) if kind is not Ellipsis]
        fixed = Ellipsis not in get_args(hint)
        if not isinstance(value, tuple) or (fixed and len(value) != len(kinds)):
            return False
        return all(_fits(item, kinds[0]) for item in value)
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _is_tuple(hint: Any) -> bool:
    return getattr(hint, "__origin__", None) is tuple


def _spell(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)


def merge(recipe: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe's values with other ones put over them.

    What the recipe's run had worked out from a value that is now another is worked out anew.
    """
    kept = dict(recipe)
    if recipe.get("strategy") == "random" and given.get("strategy", "random") != "random":
        kept.pop("weights", None)
    for key, dependents in DEPENDENTS.items():
        if key in given and given[key] != recipe.get(key):
            for name in dependents:
                kept.pop(name, None)
    return kept | given


def save_recipe(config: FinetuneConfig, path: Path) -> None:
    """Write the config as YAML; `surgery finetune --recipe FILE` repeats the run."""
    import yaml

    text = yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)
    path.write_text("# surgery finetune --recipe THIS_FILE repeats the run\n" + text, "utf-8")


def load_recipe(path: Path) -> dict[str, Any]:
    """Return the values of a recipe file, unchecked (see `from_dict`).

    Raises:
        ConfigError: If the file is not a YAML mapping.
    """
    import yaml

    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}", "Give a recipe.yaml of a run.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {error}", "Give a recipe.yaml of a run.") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: not a mapping of fields", "Give a recipe.yaml of a run.")
    return values
