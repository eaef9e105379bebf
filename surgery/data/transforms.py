"""Views of an image: as the service sees it, mirrored, or augmented from a seed."""

from __future__ import annotations

import hashlib
import threading
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from surgery.artifact.errors import ConfigError
from surgery.artifact.image import crop_box, input_size, prepare_image
from surgery.artifact.manifest import InputSpec
from surgery.config import AUGMENTATIONS, CUSTOM
from surgery.data.augment import (
    NAMED,
    Pipeline,
    build_pipeline,
    choose_steps,
    is_scaling,
    is_sized,
    run_pipeline,
)
from surgery.data.resizing import shrink_input, training_size

Pixels = NDArray[np.uint8]


class View(Protocol):
    """A function from a decoded image, and its mask, to one input of the network."""

    def __call__(
        self, image: Pixels, mask: Pixels | None, seed: int, plain: bool = False
    ) -> tuple[Pixels, Pixels | None]:
        """Return one view.

        Args:
            image: RGB, shape (h, w, 3), uint8.
            mask: Training target, shape (h, w), uint8, or None.
            seed: Decides the augmentation: same seed, same bytes, in whatever thread or order.
            plain: The view that evaluation and service use, whatever `augment` says.

        Returns:
            Image (H, W, 3) and mask (H, W), H and W as `artifact.input_size` says.
        """


def make_view(input: InputSpec, augment: str, pipeline: Pipeline | None = None, scale: float = 1.0) -> View:
    """Return the function that makes the views of training.

    Args:
        input: Size rule of the network's input.
        augment: `none`: every view is plain. `flip`: the plain view mirrored. A preset
            (`data/presets.py`), or `custom`. For labels a pipeline that scales starts from the whole
            image; all others start from the plain view.
        pipeline: The steps of `custom`, known to be right (`data/pipeline.py`).
        scale: Share of the input's sides that the views have (`data/resizing.py`).

    Raises:
        ConfigError: If there is no such augmentation, or, from the view, if a pipeline of the user's
            fails or gives what is no input of the network.
    """
    if augment not in (*AUGMENTATIONS, CUSTOM):
        raise ConfigError(f"augment {augment!r}: there is {', '.join(AUGMENTATIONS)}", "choose one")
    built = threading.local()  # a pipeline keeps its random state in itself
    small = shrink_input(input, scale)

    def view(
        image: Pixels, mask: Pixels | None, seed: int, plain: bool = False
    ) -> tuple[Pixels, Pixels | None]:
        if scale < 1 and input.size_rule == "native":
            size = training_size((image.shape[1], image.shape[0]), input, scale)
            image, mask = plain_view(image, mask, InputSpec("resize", *size))
        if plain or augment == "none":
            return plain_view(image, mask, small)
        if augment == "flip":
            return _mirror(*plain_view(image, mask, small))
        steps = choose_steps(augment, pipeline, mask is not None)
        size = input_size((image.shape[1], image.shape[0]), small)
        if min(size) == 1 and augment not in NAMED and pipeline is None:
            return plain_view(image, mask, small)  # a line of pixels, which some transforms do not take
        if mask is not None or not is_scaling(steps):
            image, mask = plain_view(image, mask, small)
        made: dict[Any, Any] = built.__dict__.setdefault("by_size", {})
        key = size if is_sized(steps) else None
        if len(made) > 64:  # images of very many sizes
            made.clear()
        try:
            if key not in made:
                made[key] = build_pipeline(steps, size)
            return _apply(made[key], image, mask, seed, size)
        except Exception as error:  # a transform raises whatever it likes
            if pipeline is None or isinstance(error, ConfigError):
                raise
            what = f"--augment fails on an image of {image.shape[1]}×{image.shape[0]} pixels"
            raise ConfigError(f"{what}: {type(error).__name__}: {error}", "Change the pipeline.") from error

    return view


def view_seed(seed: int, digest: str, view: int) -> int:
    """Return the seed of one view of one image.

    Args:
        seed: The run's.
        digest: sha256 of the image's bytes, in hex.
        view: Number of the view; 0 is the plain one.
    """
    return int(hashlib.sha256(f"{seed}/{digest}/{view}".encode()).hexdigest()[:8], 16)


def plain_view(image: Pixels, mask: Pixels | None, input: InputSpec) -> tuple[Pixels, Pixels | None]:
    """Return the image as the service prepares it, and the mask with the same geometry."""
    prepared = prepare_image(image, input)
    return prepared, None if mask is None else prepare_mask(mask, input)


def prepare_mask(mask: Pixels, input: InputSpec) -> Pixels:
    """Return a mask (h, w) cut and scaled as `artifact.prepare_image` does, by nearest pixel."""
    height, width = mask.shape
    target = input_size((width, height), input)
    box = crop_box((width, height), input)
    if box == (0.0, 0.0, width, height) and target == (width, height):
        return mask
    return np.asarray(Image.fromarray(mask).resize(target, Image.Resampling.NEAREST, box=box))


def _mirror(image: Pixels, mask: Pixels | None) -> tuple[Pixels, Pixels | None]:
    flipped = np.ascontiguousarray(image[:, ::-1])
    return flipped, None if mask is None else np.ascontiguousarray(mask[:, ::-1])


def _apply(
    built: Any, image: Pixels, mask: Pixels | None, seed: int, size: tuple[int, int]
) -> tuple[Pixels, Pixels | None]:
    data = {"image": np.ascontiguousarray(image)}
    if mask is not None:
        data["mask"] = np.ascontiguousarray(mask)
    result = run_pipeline(built, seed, **data)
    pixels = result["image"]
    where = f"--augment makes of an image of {image.shape[1]}×{image.shape[0]} pixels"
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[2:] != (3,):
        kind = f"{getattr(pixels, 'dtype', type(pixels))} {tuple(getattr(pixels, 'shape', ()))}"
        hint = "Leave out what scales, normalises or makes tensors: the network does so itself."
        raise ConfigError(f"{where} {kind}; the network takes uint8 (h, w, 3)", hint)
    if pixels.shape[:2] != size[::-1]:
        raise ConfigError(
            f"{where} one of {pixels.shape[1]}×{pixels.shape[0]}; the network's input is {size[0]}×{size[1]}",
            "Leave a step's size out, and it is the input's; or say another input with --image-size.",
        )
    return pixels, result.get("mask")
