"""What is wrong with the options of a run, all of it at once."""

from __future__ import annotations

import dataclasses
import difflib
from typing import TYPE_CHECKING

from surgery.artifact.errors import ConfigError
from surgery.config.choices import (
    AUGMENTATIONS,
    CHOICES,
    CLASSIFIERS,
    CUSTOM,
    GRADIENT_ONLY,
    LABEL_LOSSES,
    MASK_LOSSES,
    PIPELINE_FILES,
    RANGES,
    TRACKERS,
)

if TYPE_CHECKING:
    from surgery.config.adapt import AdaptConfig
    from surgery.config.options import FinetuneConfig


def find_problems(config: FinetuneConfig) -> list[str]:
    """Return all that is wrong with the values of a config, whatever the data is."""
    found = [*word_problems(config), *augment_problems(config), *_classical_problems(config)]
    found += [*range_problems(config), *tracker_problems(config)]
    if config.image_size is not None and not all(1 <= side <= 16_384 for side in config.image_size):
        found.append(f"--image-size {config.image_size} is outside 1–16384 pixels a side")
    for part in config.loss.split("+") if config.loss is not None else ():
        if part not in MASK_LOSSES:
            found.append(f"--loss {config.loss!r}: {part!r} is not one of {', '.join(MASK_LOSSES)}")
    if config.freeze_through is not None and config.strategy != "partial":
        found.append(f"--freeze-through goes with --strategy partial, not {config.strategy}")
    if config.strategy == "random" and config.weights not in ("imagenet", "random"):
        found.append(f"--strategy random starts from no weights, but --weights is {config.weights}")
    return found


def range_problems(config: FinetuneConfig | AdaptConfig) -> list[str]:
    """Return what is wrong with the numbers of a config."""
    found = []
    for field, (low, high) in RANGES.items():
        value = getattr(config, field, None)
        if value is not None and not low <= value <= high:
            found.append(f"{_flag(field)} {value} is outside {low}–{high}")
    return found


def tracker_problems(config: FinetuneConfig | AdaptConfig) -> list[str]:
    """Return what is wrong with what a config wants kept and logged."""
    found = []
    keep = config.keep_checkpoints
    if keep != "all" and not (keep.isdecimal() and int(keep) >= 1):
        found.append(f"--keep-checkpoints {keep!r} is neither a number from 1 on nor `all`")
    for tracker in config.trackers:
        if tracker not in TRACKERS:
            found.append(f"--tracker {tracker!r} is not one of {', '.join(TRACKERS)}")
    return found


def word_problems(config: FinetuneConfig | AdaptConfig) -> list[str]:
    """Return what is wrong with the words of a config."""
    found = []
    for field, allowed in CHOICES.items():
        value = getattr(config, field, None)
        if value is not None and value not in allowed:
            near = difflib.get_close_matches(str(value), allowed, 1)
            guess = f" (nearest: {near[0]})" if near else ""
            found.append(f"{_flag(field)} {value!r} is not one of {', '.join(allowed)}{guess}")
    return found


def _classical_problems(config: FinetuneConfig) -> list[str]:
    found = [
        f"--classifiers: {name!r} is not one of {', '.join(CLASSIFIERS)}"
        for name in config.classifiers
        if name not in CLASSIFIERS
    ]
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
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


def augment_problems(config: FinetuneConfig | AdaptConfig) -> list[str]:
    """Return what is wrong with the augmentation of a config."""
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
