"""Presets: what they must not change, and what they must keep whatever they change."""

from __future__ import annotations

import hashlib
import random
from concurrent.futures import ThreadPoolExecutor

import albumentations as A
import cv2
import numpy as np
import pytest

from surgery.artifact.image import input_size
from surgery.artifact.manifest import InputSpec
from surgery.config import AUGMENTATIONS, CUSTOM
from surgery.data.augment import (
    build_pipeline,
    choose_steps,
    describe_content,
    describe_steps,
    make_certain,
    open_step,
)
from surgery.data.targets import IGNORE
from surgery.data.transforms import make_view, plain_view

NATIVE = InputSpec("native")
SPECS = [NATIVE, InputSpec("native", max_pixels=900), InputSpec("resize", 40, 24), InputSpec("crop", 32, 32)]
PRESETS = [name for name in AUGMENTATIONS if name not in ("none", "flip")]
MOVING = {"RandomResizedCrop", "HorizontalFlip", "Affine", "Rotate", "Perspective"}


def picture(width=60, height=44):
    """Return smooth noise, so that resampling keeps what is where."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    channels = [np.sin(x / 9 + i) * np.cos(y / 7 - i) for i in range(3)]
    return ((np.stack(channels, axis=2) + 1) * 127).astype(np.uint8)


def discs(width=120, height=88):
    """Return a mask of two discs that are not each other's mirror image."""
    y, x = np.mgrid[:height, :width]
    inside = ((x - 75) ** 2 + (y - 40) ** 2 < 650) | ((x - 25) ** 2 + (y - 62) ** 2 < 200)
    return inside.astype(np.uint8)


def digest(view):
    image, mask = view
    return hashlib.sha256(image.tobytes() + (b"" if mask is None else mask.tobytes())).hexdigest()


def light_before(image, mask, spec, seed):
    """`light` as it was when recipes and caches began to depend on it, in albumentations' own words."""
    width, height = input_size((image.shape[1], image.shape[0]), spec)
    if mask is None:
        steps = [
            A.RandomResizedCrop(
                (height, width),
                scale=(0.35, 1.0),
                ratio=(0.75 * width / height, 4 / 3 * width / height),
                area_for_downscale="image",
            ),
            A.HorizontalFlip(p=0.5),
            A.ColorJitter(
                brightness=(0.8, 1.2), contrast=(0.8, 1.2), saturation=(0.8, 1.2), hue=(-0.03, 0.03), p=0.8
            ),
        ]
        data = {"image": image}
    else:
        steps = [
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
        image, mask = plain_view(image, mask, spec)
        data = {"image": image, "mask": mask}
    pipeline = A.Compose(steps)
    pipeline.set_random_state(np.random.default_rng(seed), random.Random(seed))
    result = pipeline(**data)
    return result["image"], result.get("mask")


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("with_mask", [False, True])
def test_light_gives_the_bytes_it_always_gave(spec, with_mask):
    image = picture()
    mask = (image[:, :, 0] > 127).astype(np.uint8) if with_mask else None
    view = make_view(spec, "light")
    for seed in range(25):
        assert digest(view(image, mask, seed)) == digest(light_before(image, mask, spec, seed))


@pytest.mark.parametrize("augment", PRESETS)
@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("with_mask", [False, True])
def test_a_preset_changes_the_view_but_not_its_size(augment, spec, with_mask):
    image = picture()
    mask = (image[:, :, 0] > 127).astype(np.uint8) if with_mask else None
    plain, view = plain_view(image, mask, spec), make_view(spec, augment)
    different = 0
    for seed in range(12):
        seen, target = view(image, mask, seed)
        assert seen.dtype == np.uint8
        assert seen.shape == plain[0].shape
        assert target is None or target.shape == seen.shape[:2]
        different += not np.array_equal(seen, plain[0])
    assert different >= 10


@pytest.mark.parametrize("augment", PRESETS)
@pytest.mark.parametrize("with_mask", [False, True])
def test_the_seed_decides_alone_in_whatever_thread_and_order(augment, with_mask):
    image = picture()
    mask = (image[:, :, 0] > 127).astype(np.uint8) if with_mask else None
    view = make_view(InputSpec("resize", 40, 32), augment)
    alone = [digest(view(image, mask, seed)) for seed in range(40)]
    with ThreadPoolExecutor(6) as pool:
        jobs = [pool.submit(view, image, mask, seed) for seed in reversed(range(40))]
        together = [digest(job.result()) for job in reversed(jobs)]
    assert together == alone
    assert len(set(alone)) >= 36
    other = make_view(InputSpec("resize", 40, 32), augment)
    np.random.seed(1)
    random.seed(1)
    assert [digest(other(image, mask, seed)) for seed in range(40)] == alone


@pytest.mark.parametrize("augment", PRESETS)
def test_a_mask_holds_nothing_but_its_own_values(augment):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)
    mask = np.kron(rng.choice([3, 90, 200], (8, 12)), np.ones((8, 8))).astype(np.uint8)
    view = make_view(NATIVE, augment)
    ignored = 0
    for seed in range(60):
        _, target = view(image, mask, seed)
        assert set(np.unique(target)) <= {3, 90, 200, IGNORE}
        ignored += bool((target == IGNORE).any())
    assert (ignored > 0) == (augment == "heavy")  # where holes are cut


@pytest.mark.parametrize("augment", PRESETS)
def test_a_mask_goes_where_its_image_goes(augment):
    mask = discs()
    image = np.repeat(mask[..., None] * 200 + 20, 3, axis=2).astype(np.uint8)
    steps = [step for step in choose_steps(augment, None, True) if open_step(step)[0] in MOVING]
    view, moved = make_view(NATIVE, CUSTOM, make_certain(steps)), 0
    for seed in range(20):
        seen, target = view(image, mask, seed)
        assert ((seen[:, :, 1] > 120) != target).mean() < 0.02
        moved += (target != mask).mean() > 0.02
    assert moved > 15


def test_nobody_is_asked_for_a_class_under_a_hole():
    image, mask = np.full((64, 64, 3), 130, np.uint8), np.ones((64, 64), np.uint8)
    (hole,) = (step for step in choose_steps("heavy", None, True) if "CoarseDropout" in step)
    seen, target = make_view(NATIVE, CUSTOM, make_certain([hole]))(image, mask, 3)
    assert 0 < (target == IGNORE).mean() < 0.5
    assert np.array_equal(target == IGNORE, (seen == 0).all(axis=2))


@pytest.mark.parametrize("name", ["Affine", "Rotate", "Perspective"])
@pytest.mark.parametrize("augment", PRESETS)
@pytest.mark.parametrize("masks", [False, True])
def test_the_outside_is_a_reflection(name, augment, masks):
    for step in choose_steps(augment, None, masks):
        if name in step:
            assert step[name]["border_mode"] == cv2.BORDER_REFLECT_101


@pytest.mark.parametrize("augment", PRESETS)
@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.filterwarnings("error")
def test_albumentations_knows_every_argument(augment, masks):
    built = build_pipeline(choose_steps(augment, None, masks), (40, 30))
    assert len(built.transforms) == len(choose_steps(augment, None, masks))


@pytest.mark.parametrize("augment", PRESETS)
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 1), (2, 3), (1500, 2), (2, 1500)])
@pytest.mark.parametrize("with_mask", [True, False])
def test_the_oddest_sizes_pass(augment, size, with_mask):
    image = np.full((size[1], size[0], 3), 99, np.uint8)
    mask = np.zeros(size[::-1], np.uint8) if with_mask else None
    view = make_view(NATIVE, augment)
    for seed in range(15):
        assert view(image, mask, seed)[0].shape == image.shape


def test_a_key_holds_all_that_views_depend_on():
    assert [describe_content(name, None, False) for name in ("none", "flip", "light")] == [
        "none",
        "flip",
        "light",
    ]
    steps = [{"HorizontalFlip": {"p": 0.5}}]
    others = [{"HorizontalFlip": {"p": 0.25}}]
    keys = [describe_content(CUSTOM, pipeline, True) for pipeline in (steps, others)]
    keys += [describe_content("medium", None, masks) for masks in (True, False)]
    assert all(a != b for k, a in enumerate(keys) for b in keys[:k])


def test_steps_are_named_with_what_they_hold():
    inner = [{"Blur": {}}, {"OneOf": {"transforms": [{"ToGray": {}}]}}]
    assert describe_steps([{"HorizontalFlip": {}}, {"OneOf": {"transforms": inner, "p": 1}}]) == (
        "HorizontalFlip, OneOf(Blur, OneOf(ToGray))"
    )


def test_certain_is_what_may_happen():
    steps = [{"Blur": {"p": 0.1}}, {"Blur": {"p": 0}}, {"Blur": {}}]
    weights = [{"Blur": {"p": 0.2}}]
    sure = make_certain(
        [*steps, {"OneOf": {"transforms": weights}}, {"Sequential": {"transforms": steps, "p": 0.3}}]
    )
    once = [{"Blur": {"p": 1.0}}, {"Blur": {"p": 0}}, {"Blur": {"p": 1.0}}]
    assert sure[:3] == once
    assert sure[3:] == [
        {"OneOf": {"transforms": weights, "p": 1.0}},
        {"Sequential": {"transforms": once, "p": 1.0}},
    ]
