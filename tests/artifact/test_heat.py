"""Heat lies where the evidence is, in the image's own size, and nowhere that the input does not show."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from surgery.artifact.answer import answer_mask, label_heat, mask_heat, sigmoid, softmax
from surgery.artifact.manifest import InputSpec, OutputSpec

WHOLE = InputSpec("resize", width=8, height=8)
CROP = InputSpec("crop", width=8, height=8, crop_share=0.5)
THREE = OutputSpec("softmax", ("road", "car", "sky"), (0, 1, 2))
CAR = OutputSpec("sigmoid", ("rest", "car"), (0, 1), "rest")
RNG = np.random.default_rng(0)


def test_heat_is_in_proportion_and_evidence_against_is_none() -> None:
    cam = np.array([[[9.0, 9.0]], [[4.0, -2.0]]], np.float32)  # (2, 1, 2)
    heat = label_heat(cam, 1, (8, 2), WHOLE)
    assert heat.dtype == np.uint8
    # Cell centres stand at 2 and 6, the pixels at 0.5, 1.5, …
    line = np.rint(255 * np.array([1, 1, 7 / 8, 5 / 8, 3 / 8, 1 / 8, 0, 0])).astype(int)
    assert heat.tolist() == [line.tolist()] * 2


def test_no_evidence_is_no_heat() -> None:
    assert not label_heat(np.full((1, 3, 3), -1.0, np.float32), 0, (9, 9), WHOLE).any()


def test_heat_is_enlarged_as_images_are() -> None:
    cam = RNG.random((1, 5, 7), np.float32)
    want = cv2.resize(cam[0] / cam.max(), (40, 30), interpolation=cv2.INTER_LINEAR) * 255
    assert np.abs(label_heat(cam, 0, (40, 30), WHOLE) - want).max() <= 0.51


def test_outside_the_crop_there_is_no_heat() -> None:
    heat = label_heat(np.ones((1, 2, 2), np.float32), 0, (20, 12), CROP)
    want = np.zeros((12, 20), np.uint8)
    want[3:9, 7:13] = 255  # a central box of 6×6: half of 12
    np.testing.assert_array_equal(heat, want)


def test_one_hot_cell_of_a_crop_lies_in_its_part_of_the_image() -> None:
    cam = np.zeros((1, 2, 2), np.float32)
    cam[0, 0, 1] = 1
    heat = label_heat(cam, 0, (64, 64), CROP)
    assert np.unravel_index(heat.argmax(), heat.shape) >= (16, 40)
    rows, columns = np.nonzero(heat == 255)
    assert (rows.min(), rows.max()) == (16, 23)  # up to the cell's centre; from there it falls
    assert (columns.min(), columns.max()) == (40, 47)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_masks_heat_is_the_probability_of_its_class(index: int) -> None:
    logits = RNG.normal(0, 3, (3, 4, 5)).astype(np.float32)
    heat = mask_heat(logits, index, (5, 4), THREE)
    np.testing.assert_array_equal(heat, np.rint(softmax(logits, axis=0)[index] * 255))
    enlarged = np.stack([mask_heat(logits, k, (50, 40), THREE) for k in range(3)])
    mask = answer_mask(logits, (50, 40), THREE)
    chosen = np.take_along_axis(enlarged, mask[None].astype(int), 0)[0]
    assert (chosen >= enlarged.max(axis=0)).all()


def test_a_sigmoids_two_classes_add_up() -> None:
    logits = np.array([[[0.0, 2.0, -500.0]]], np.float32)
    car = mask_heat(logits, 1, (3, 1), CAR)
    np.testing.assert_array_equal(car, np.rint(sigmoid(logits[0]) * 255))
    np.testing.assert_array_equal(car[0, [0, 2]], [128, 0])
    assert np.abs(car.astype(int) + mask_heat(logits, 0, (3, 1), CAR) - 255).max() <= 1


def test_far_logits_do_not_overflow() -> None:
    logits = np.array([1e4, 0, -1e4], np.float32)[:, None, None]
    with np.errstate(over="raise", invalid="raise"):
        assert [int(mask_heat(logits, k, (1, 1), THREE)[0, 0]) for k in range(3)] == [255, 0, 0]
