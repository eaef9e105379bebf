"""Pipelines of augmentation: plain data that becomes albumentations.

A pipeline is a list of steps, a step is `{TransformName: {argument: value}}`, and what `OneOf` and its
like choose from stands under their argument `transforms`, in the same form.
"""

from __future__ import annotations

import functools
import inspect
import os
import random
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from surgery.data.presets import LABELS, MASKS, Step
from surgery.data.targets import IGNORE

Pipeline = Sequence[Step]

SCALING = ("RandomResizedCrop", "RandomSizedCrop", "Resize", "SmallestMaxSize", "LongestMaxSize")
"""Steps that bring an image to a size of their own."""
NAMED = ("none", "flip", "light")
"""Augmentations that never change: records in the cache are known by these names."""


def choose_steps(augment: str, pipeline: Pipeline | None, masks: bool) -> Pipeline:
    """Return the user's own steps, or else those of a preset."""
    if pipeline is not None:
        return pipeline
    return (MASKS if masks else LABELS)[augment]


def describe_content(augment: str, pipeline: Pipeline | None, masks: bool) -> Any:
    """Return what tells the views of an augmentation from all others, as plain data for a cache's key."""
    return augment if augment in NAMED else list(choose_steps(augment, pipeline, masks))


def describe_steps(pipeline: Pipeline) -> str:
    """Return the steps by name: `HorizontalFlip, OneOf(Blur, GaussNoise)`."""
    names = []
    for name, args in map(open_step, pipeline):
        names.append(f"{name}({describe_steps(args['transforms'])})" if "transforms" in args else name)
    return ", ".join(names)


def is_scaling(pipeline: Pipeline) -> bool:
    """Return whether the pipeline takes images of all sizes and brings them to one.

    For labels it then starts from the whole image; any other pipeline starts from the plain view.
    """
    return any(name in SCALING for name, _ in _walk(pipeline))


def is_sized(pipeline: Pipeline) -> bool:
    """Return whether a step takes a size from the input (see `fill_in`)."""
    return any(_open_sizes(name, args) for name, args in _walk(pipeline))


def keep_in_place(pipeline: Pipeline) -> list[Step]:
    """Return the steps that move no pixel: what they make of an image still fits its mask."""
    kept: list[Step] = []
    for name, args in map(open_step, pipeline):
        if "transforms" in args:
            inner = keep_in_place(args["transforms"])
            if inner:
                kept.append({name: args | {"transforms": inner}})
        elif issubclass(getattr(load_albumentations(), name), load_albumentations().ImageOnlyTransform):
            kept.append({name: args})
    return kept


def make_certain(pipeline: Pipeline) -> list[Step]:
    """Return the pipeline with all that may happen happening: wherever `p` is more than 0, it is 1.

    The steps of a `OneOf` keep theirs, which are weights.
    """
    sure: list[Step] = []
    for name, args in map(open_step, pipeline):
        changed = args | ({"p": 1.0} if args.get("p", 1) > 0 else {})
        if "transforms" in args and name != "OneOf":
            changed["transforms"] = make_certain(args["transforms"])
        sure.append({name: changed})
    return sure


def build_pipeline(pipeline: Pipeline, size: tuple[int, int]) -> Any:
    """Return the `albumentations.Compose` of steps that are known to be right.

    Args:
        pipeline: The steps.
        size: (width, height) of the input.
    """
    return load_albumentations().Compose([_build_step(step, size) for step in pipeline])


def run_pipeline(built: Any, seed: int, **data: Any) -> dict[str, Any]:
    """Apply a built pipeline; the seed decides everything. A pipeline is for one thread at a time."""
    # One generator for all steps. `set_random_seed` would give each step its own from the same
    # seed, and the first draws of all of them, such as flip and brightness, would be the same.
    built.set_random_state(np.random.default_rng(seed), random.Random(seed))
    result: dict[str, Any] = built(**data)
    return result


def fill_in(name: str, args: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """Return the arguments of a step with those filled in that follow from the input.

    A size that must be given and is not is the input's, and a `RandomResizedCrop` is about of its
    shape. What a mask would show of the outside, or of a hole, is ignored.

    Args:
        name: Name of the transform.
        args: Its arguments as the pipeline has them.
        size: (width, height) of the input.
    """
    width, height = size
    sizes = {"size": (height, width), "height": height, "width": width}
    filled = args | {key: sizes[key] for key in _open_sizes(name, args)}
    if name == "RandomResizedCrop":
        filled.setdefault("ratio", (0.75 * width / height, 4 / 3 * width / height))
    known = parameters(name)
    if "fill_mask" in known and known["fill_mask"].default == 0:
        filled.setdefault("fill_mask", IGNORE)
    return filled


def open_step(step: Step) -> tuple[str, dict[str, Any]]:
    """Return name and arguments of a step."""
    ((name, args),) = step.items()
    return name, args


@functools.cache
def parameters(name: str) -> dict[str, inspect.Parameter]:
    """Return the arguments that an albumentations transform takes."""
    found = inspect.signature(getattr(load_albumentations(), name).__init__).parameters
    return {key: parameter for key, parameter in found.items() if key != "self"}


@functools.cache
def load_albumentations() -> Any:
    """Import albumentations, without its question to the package index for its newest version."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations

    # Some transforms advertise another one each time they are made. What it has to say of the
    # arguments is asked for where a pipeline is read, and refused there.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"albumentations\.")
    return albumentations


def _build_step(step: Step, size: tuple[int, int]) -> Any:
    name, args = open_step(step)
    filled = fill_in(name, args, size)
    if "transforms" in args:
        filled["transforms"] = [_build_step(inner, size) for inner in args["transforms"]]
    return getattr(load_albumentations(), name)(**filled)


def _walk(pipeline: Pipeline) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, args in map(open_step, pipeline):
        yield name, args
        yield from _walk(args.get("transforms", ()))


def _open_sizes(name: str, args: dict[str, Any]) -> list[str]:
    """Return the sizes that a step must be given and is not."""
    known = parameters(name)
    must = inspect.Parameter.empty
    return [
        k for k in ("size", "height", "width") if k in known and known[k].default is must and k not in args
    ]
