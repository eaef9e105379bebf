"""The presets of `--augment`, as pipelines (see `data/augment.py` for their form)."""

from __future__ import annotations

from typing import Any

import cv2

from surgery.data.targets import IGNORE

Step = dict[str, dict[str, Any]]

_REFLECT = {"border_mode": cv2.BORDER_REFLECT_101}
_FLIP: Step = {"HorizontalFlip": {"p": 0.5}}


def _crop(least: float) -> Step:
    # By area the step averages like the plain view does when it scales down.
    return {"RandomResizedCrop": {"scale": [least, 1.0], "area_for_downscale": "image"}}


def _turn(degrees: float, p: float) -> Step:
    return {"Rotate": {"limit": [-degrees, degrees], **_REFLECT, "p": p}}


def _move(low: float, high: float, shift: float, p: float, **turns: list[float]) -> Step:
    scale = {"scale": [low, high], "keep_ratio": True, "balanced_scale": True}
    return {"Affine": {**scale, "translate_percent": [-shift, shift], **turns, **_REFLECT, "p": p}}


def _jitter(change: float, hue: float, p: float) -> Step:
    spread = [1 - change, 1 + change]
    values: dict[str, Any] = {"brightness": spread, "contrast": spread, "saturation": spread}
    return {"ColorJitter": {**values, "hue": [-hue, hue], "p": p}}


def _one_of(p: float, *steps: Step) -> Step:
    return {"OneOf": {"transforms": list(steps), "p": p}}


def _blur(p: float) -> Step:
    return _one_of(
        p,
        {"GaussianBlur": {"sigma_limit": [0.5, 1.5], "p": 1.0}},
        {"MotionBlur": {"blur_limit": [3, 7], "p": 1.0}},
        {"Downscale": {"scale_range": [0.4, 0.8], "p": 1.0}},
    )


def _noise(p: float) -> Step:
    return _one_of(
        p,
        {"GaussNoise": {"std_range": [0.02, 0.1], "p": 1.0}},
        {"GaussNoise": {"std_range": [0.02, 0.1], "noise_scale_factor": 0.5, "p": 1.0}},
    )


def _compress(worst: int, p: float) -> Step:
    return {"ImageCompression": {"quality_range": [worst, 95], "p": p}}


_MEDIUM: list[Step] = [_jitter(0.3, 0.05, 0.8), _blur(0.15), _noise(0.15)]
_HEAVY: list[Step] = [
    {"Perspective": {"scale": [0.03, 0.1], **_REFLECT, "p": 0.3}},
    _jitter(0.4, 0.1, 0.9),
    {"RandomGamma": {"gamma_limit": [60, 160], "p": 0.3}},
    {"ToGray": {"p": 0.1}},
    _blur(0.25),
    _noise(0.25),
    _compress(40, 0.3),
    {
        "CoarseDropout": {
            "num_holes_range": [1, 4],
            "hole_height_range": [0.08, 0.2],
            "hole_width_range": [0.08, 0.2],
            "fill_mask": IGNORE,  # nobody can tell what lies under a hole
            "p": 0.4,
        }
    },
]
_DOMAIN: list[Step] = [
    {"RandomBrightnessContrast": {"brightness_limit": 0.4, "contrast_limit": 0.3, "p": 0.6}},
    {"RandomGamma": {"gamma_limit": [50, 180], "p": 0.4}},
    {"HueSaturationValue": {"hue_shift_limit": 12, "sat_shift_limit": 40, "val_shift_limit": 15, "p": 0.5}},
    {"PlanckianJitter": {"p": 0.2}},
    _one_of(
        0.4,
        # Fog is an even veil: I·t + A·(1−t). RandomFog draws a thousand discs, at 0.4 s an image.
        {
            "RandomBrightnessContrast": {
                "brightness_limit": [0.2, 0.4],
                "contrast_limit": [-0.6, -0.3],
                "p": 1.0,
            }
        },
        {"RandomRain": {"slant_range": [-15, 15], "brightness_coefficient": 0.8, "blur_value": 3, "p": 1.0}},
        {"RandomShadow": {"shadow_roi": [0, 0.3, 1, 1], "shadow_intensity_range": [0.3, 0.6], "p": 1.0}},
        {"RandomSunFlare": {"src_radius": 120, "p": 0.3}},
    ),
    _blur(0.2),
    _noise(0.25),
    _compress(30, 0.3),
    {"ToGray": {"p": 0.1}},
]

LABELS: dict[str, list[Step]] = {
    "light": [_crop(0.35), _FLIP, _jitter(0.2, 0.03, 0.8)],
    "medium": [_crop(0.25), _FLIP, _turn(10, 0.3), *_MEDIUM],
    "heavy": [_crop(0.15), _FLIP, _turn(20, 0.5), *_HEAVY],
    "domain": [_crop(0.35), _FLIP, *_DOMAIN],
}
"""Steps from the whole image to the network's input."""

MASKS: dict[str, list[Step]] = {
    "light": [
        _FLIP,
        _move(0.67, 1.5, 0.1, 0.8),
        {"RandomBrightnessContrast": {"brightness_limit": 0.2, "contrast_limit": 0.2, "p": 0.5}},
        {"HueSaturationValue": {"hue_shift_limit": 5, "sat_shift_limit": 20, "val_shift_limit": 0, "p": 0.3}},
    ],
    "medium": [_FLIP, _move(0.6, 1.7, 0.15, 0.8, rotate=[-8, 8]), *_MEDIUM],
    "heavy": [_FLIP, _move(0.5, 2.0, 0.2, 0.9, rotate=[-15, 15], shear=[-8, 8]), *_HEAVY],
    "domain": [_FLIP, _move(0.67, 1.5, 0.1, 0.8), *_DOMAIN],
}
"""Steps from the plain view, image and mask, to another view of the same size."""
