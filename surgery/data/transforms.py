"""Views of an image: as the service sees it, mirrored, or augmented from a seed."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from surgery.artifact.errors import ConfigError
from surgery.artifact.image import crop_box, input_size, prepare_image
from surgery.artifact.manifest import InputSpec
from surgery.config import AUGMENTATIONS

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


def make_view(input: InputSpec, augment: str) -> View:
    """Return the function that makes the views of training.

    Args:
        input: Size rule of the network's input.
        augment: `none`: every view is plain. `flip`: the plain view mirrored. `light`: for labels
            a random crop, mirrored or not, with mild changes of colour; for masks mirrored or not,
            moved and scaled by up to half, with mild changes of light.

    Raises:
        ConfigError: If there is no such augmentation.
    """
    if augment not in AUGMENTATIONS:
        raise ConfigError(f"augment {augment!r}: there is {', '.join(AUGMENTATIONS)}", "choose one")

    def view(
        image: Pixels, mask: Pixels | None, seed: int, plain: bool = False
    ) -> tuple[Pixels, Pixels | None]:
        if plain or augment == "none":
            return plain_view(image, mask, input)
        if augment == "flip":
            return _mirror(*plain_view(image, mask, input))
        if mask is None:
            return _augment_labelled(image, input, seed), None
        return _augment_masked(image, mask, input, seed)

    return view


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


def _augment_labelled(image: Pixels, input: InputSpec, seed: int) -> Pixels:
    height, width = image.shape[:2]
    size = input_size((width, height), input)
    pipeline = _pipeline(("label", size), lambda: _label_pipeline(size))
    result: Pixels = _run(pipeline, seed, image=np.ascontiguousarray(image))["image"]
    return result


def _augment_masked(image: Pixels, mask: Pixels, input: InputSpec, seed: int) -> tuple[Pixels, Pixels]:
    prepared, target = plain_view(image, mask, input)
    pipeline = _pipeline(("mask",), _mask_pipeline)
    result = _run(
        pipeline,
        seed,
        image=np.ascontiguousarray(prepared),
        mask=np.ascontiguousarray(target),
    )
    return result["image"], result["mask"]


# --- albumentations -------------------------------------------------------------------------------

_OF_THREAD = threading.local()


def _pipeline(key: tuple[Any, ...], build: Callable[[], Any]) -> Any:
    """Return this thread's own pipeline: a pipeline keeps its random state in itself."""
    made: dict[tuple[Any, ...], Any] = _OF_THREAD.__dict__.setdefault("pipelines", {})
    if key not in made:
        if len(made) > 64:  # images of very many sizes
            made.clear()
        made[key] = build()
    return made[key]


def _run(pipeline: Any, seed: int, **data: Any) -> dict[str, Any]:
    # One generator for all steps. `set_random_seed` would give each step its own from the same
    # seed, and the first draws of all of them, such as flip and brightness, would be the same.
    pipeline.set_random_state(np.random.default_rng(seed), random.Random(seed))
    result: dict[str, Any] = pipeline(**data)
    return result


def _label_pipeline(size: tuple[int, int]) -> Any:
    A = _albumentations()
    width, height = size
    return A.Compose(
        [
            A.RandomResizedCrop(
                (height, width),
                scale=(0.35, 1.0),
                ratio=(0.75 * width / height, 4 / 3 * width / height),
                # Averages like the plain view does when it scales down.
                area_for_downscale="image",
            ),
            A.HorizontalFlip(p=0.5),
            A.ColorJitter(
                brightness=(0.8, 1.2),
                contrast=(0.8, 1.2),
                saturation=(0.8, 1.2),
                hue=(-0.03, 0.03),
                p=0.8,
            ),
        ]
    )


def _mask_pipeline() -> Any:
    A = _albumentations()
    return A.Compose(
        [
            A.HorizontalFlip(p=0.5),
            A.Affine(
                scale=(0.67, 1.5),
                keep_ratio=True,
                balanced_scale=True,
                translate_percent=(-0.1, 0.1),
                border_mode=cv2.BORDER_REFLECT_101,
                p=0.8,
            ),
            A.RandomBrightnessContrast(brightness_limit=0.2, contrast_limit=0.2, p=0.5),
            A.HueSaturationValue(hue_shift_limit=5, sat_shift_limit=20, val_shift_limit=0, p=0.3),
        ]
    )


def _albumentations() -> Any:
    # Importing it asks the package index for its newest version otherwise.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations

    return albumentations
