"""Logits become labels, masks, numbers and pictures with known values."""

from __future__ import annotations

import io
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image

from surgery.artifact.answer import (
    answer_labels,
    answer_mask,
    class_colours,
    draw_overlay,
    encode_mask_png,
    mask_boxes,
    mask_pixels,
    sigmoid,
    softmax,
)
from surgery.artifact.errors import StoreError, SurgeryError
from surgery.artifact.manifest import OutputSpec

THREE = OutputSpec("softmax", ("road", "car", "sky"), (0, 1, 2))
LABELS = OutputSpec("softmax", ("ant", "bee", "cow"))
CAR = OutputSpec("sigmoid", ("rest", "car"), (0, 1), "rest")
MASK = np.zeros((40, 60), np.uint8)
MASK[10:20, 30:50] = 1
MASK[0:2, 0:2] = 1
MASK[30:40, :] = 2


def test_probabilities_have_known_values() -> None:
    logits = np.log(np.array([1, 2, 5], np.float32))
    np.testing.assert_allclose(softmax(logits), [0.125, 0.25, 0.625], rtol=1e-6)
    np.testing.assert_allclose(sigmoid(np.log([3.0])), [0.75])


def test_probabilities_never_overflow() -> None:
    with np.errstate(all="raise", under="ignore"):
        assert softmax(np.array([1e4, 0, -1e4], np.float32)).tolist() == [1, 0, 0]
        assert sigmoid(np.array([1e4, 0, -1e4])).tolist() == [1, 0.5, 0]


def test_softmax_takes_an_axis() -> None:
    logits = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    np.testing.assert_allclose(softmax(logits, axis=0).sum(axis=0), 1, rtol=1e-6)


def test_labels_fall_in_probability() -> None:
    answer = answer_labels(np.log(np.array([2, 5, 1], np.float32)), LABELS)
    assert [each["label"] for each in answer] == ["bee", "ant", "cow"]
    assert [each["probability"] for each in answer] == pytest.approx([0.625, 0.25, 0.125])
    assert type(answer[0]["probability"]) is float


def test_of_several_labels_each_says_whether_it_is_present() -> None:
    output = OutputSpec("sigmoid", ("ant", "bee", "cow"))
    assert output.logits == 3
    assert not output.problems("classify")
    answer = answer_labels(np.array([-1, 2, np.log(3)], np.float32), output)
    assert [(each["label"], each["present"]) for each in answer] == [
        ("bee", True),
        ("cow", True),
        ("ant", False),
    ]
    assert answer[1]["probability"] == pytest.approx(0.75)
    assert "present" not in answer_labels(np.zeros(3, np.float32), LABELS)[0]


def test_the_temperature_changes_probabilities_and_no_label() -> None:
    logits = np.log(np.array([1, 4, 16], np.float32))
    warm = replace(LABELS, temperature=2.0)
    assert [row["probability"] for row in answer_labels(logits, warm)] == pytest.approx([4 / 7, 2 / 7, 1 / 7])
    several = OutputSpec("sigmoid", ("ant", "bee", "cow"), temperature=2.0)
    answer = answer_labels(np.array([-np.log(9), np.log(9), 1e-30], np.float32), several)
    assert [row["probability"] for row in answer] == pytest.approx([0.75, 0.5, 0.25])
    assert [row["present"] for row in answer] == [True, True, False]


def test_labels_that_are_all_but_certain_keep_their_order() -> None:
    several = OutputSpec("sigmoid", ("ant", "bee", "cow"), temperature=0.1)
    answer = answer_labels(np.array([40, 60, 50], np.float32), several)
    assert [row["label"] for row in answer] == ["bee", "cow", "ant"]


def test_equal_labels_keep_the_order_of_classes() -> None:
    answer = answer_labels(np.zeros(3, np.float32), LABELS)
    assert [each["label"] for each in answer] == ["ant", "bee", "cow"]


@pytest.mark.parametrize("shape", [(2,), (4,), (1, 3), ()])
def test_labels_of_another_graph_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(StoreError, match="manifest wants"):
        answer_labels(np.zeros(shape, np.float32), LABELS)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_no_answer(bad: float) -> None:
    logits = np.zeros((3, 4, 5), np.float32)
    logits[1, 2, 3] = bad
    with pytest.raises(SurgeryError, match="not finite"):
        answer_mask(logits, (5, 4), THREE)
    with pytest.raises(SurgeryError, match="not finite"):
        answer_labels(logits[:, 2, 3], LABELS)


@pytest.mark.parametrize("seed", range(3))
def test_mask_is_the_argmax(seed: int) -> None:
    # Whole numbers make ties, which the first class wins.
    logits = np.random.default_rng(seed).integers(0, 4, (3, 17, 23)).astype(np.float32)
    before = logits.copy()
    mask = answer_mask(logits, (23, 17), THREE)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, logits.argmax(axis=0))
    np.testing.assert_array_equal(logits, before)


def test_logits_are_resized_before_the_choice() -> None:
    logits = np.random.default_rng(0).normal(size=(3, 6, 8)).astype(np.float32)
    resized = cv2.resize(logits.transpose(1, 2, 0), (21, 13), interpolation=cv2.INTER_LINEAR)
    mask = answer_mask(logits, (21, 13), THREE)
    assert mask.shape == (13, 21)
    np.testing.assert_array_equal(mask, resized.argmax(axis=2))


def test_one_class_is_where_its_logit_is_positive() -> None:
    logits = np.array([[[-1, 0, 1e-6, 3]]], np.float32)
    assert answer_mask(logits, (4, 1), CAR).tolist() == [[0, 0, 1, 1]]
    grown = answer_mask(np.array([[[-1, 3]]], np.float32), (4, 1), CAR)
    assert grown.tolist() == [[0, 0, 1, 1]]  # resized to -1, 0, 2, 3


def test_mask_values_are_the_manifests() -> None:
    logits = np.eye(3, dtype=np.float32)[:, None]  # (3, 1, 3): pixel k is of class k
    mask = answer_mask(logits, (3, 1), OutputSpec("softmax", ("a", "b", "c"), (4, 0, 255)))
    assert mask.dtype == np.uint8
    assert mask.tolist() == [[4, 0, 255]]
    mask = answer_mask(logits, (3, 1), OutputSpec("softmax", ("a", "b", "c"), (1, 300, 65535)))
    assert mask.dtype == np.uint16
    assert mask.tolist() == [[1, 300, 65535]]


def test_more_than_256_classes() -> None:
    output = OutputSpec("softmax", tuple(map(str, range(300))), tuple(range(300)))
    logits = np.eye(300, dtype=np.float32)[:, None]
    assert answer_mask(logits, (300, 1), output).tolist() == [list(range(300))]


def test_masks_of_another_graph_are_refused() -> None:
    for shape in ((2, 4, 4), (1, 3, 4, 4), (3, 4)):
        with pytest.raises(StoreError, match="manifest wants"):
            answer_mask(np.zeros(shape, np.float32), (4, 4), THREE)


def test_shares_name_every_class() -> None:
    four = OutputSpec("softmax", ("road", "car", "sky", "lake"), (0, 1, 2, 7))
    shares = mask_pixels(MASK, four)
    assert shares == {"road": 1596 / 2400, "car": 204 / 2400, "sky": 0.25, "lake": 0.0}


def test_boxes_hold_the_pieces() -> None:
    boxes = mask_boxes(MASK, THREE, min_pixels=4)
    cars = [piece for piece in boxes if piece["label"] == "car"]
    assert cars == [
        {"label": "car", "box": [30, 10, 50, 20], "pixels": 200},
        {"label": "car", "box": [0, 0, 2, 2], "pixels": 4},
    ]
    assert boxes[0]["label"] == "road"
    assert all(type(value) is int for value in boxes[0]["box"])


def test_pieces_that_touch_at_a_corner_are_one() -> None:
    boxes = mask_boxes(np.eye(5, dtype=np.uint8), CAR, min_pixels=1)
    assert boxes == [{"label": "car", "box": [0, 0, 5, 5], "pixels": 5}]


def test_boxes_leave_out_specks_and_the_rest() -> None:
    boxes = mask_boxes((MASK == 1).astype(np.uint8), CAR)
    assert [piece["box"] for piece in boxes] == [[30, 10, 50, 20]]
    assert mask_boxes(np.zeros((3, 3), np.uint8), CAR) == []


@pytest.mark.parametrize("values", [[[0, 1, 255]], [[0, 256, 65535]]])
def test_png_keeps_the_values(values: list[list[int]]) -> None:
    mask = np.array(values, np.uint16 if max(values[0]) > 255 else np.uint8)
    image = Image.open(io.BytesIO(encode_mask_png(mask)))
    assert image.format == "PNG"
    assert np.asarray(image).tolist() == values


def test_overlay_draws_classes_and_leaves_the_rest() -> None:
    image = np.full((40, 60, 3), 100, np.uint8)
    mask = (MASK == 1).astype(np.uint8)
    drawn = draw_overlay(image, mask, CAR)
    colour = np.array(class_colours(CAR)["car"])
    assert (image == 100).all()
    assert (drawn[mask == 0] == 100).all()
    assert drawn[10, 30].tolist() == colour.tolist()
    assert np.abs(drawn[15, 40] - (50 + colour / 2)).max() <= 1


def test_overlay_of_nothing_is_the_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    np.testing.assert_array_equal(draw_overlay(image, np.zeros((4, 5), np.uint8), CAR), image)


def test_overlay_of_wide_values_and_one_pixel() -> None:
    output = OutputSpec("softmax", ("a", "b"), (0, 300), "a")
    drawn = draw_overlay(np.zeros((1, 1, 3), np.uint8), np.full((1, 1), 300, np.uint16), output)
    assert drawn[0, 0].max() > 100


def test_colours_differ() -> None:
    many = OutputSpec("softmax", tuple(map(str, range(30))), tuple(range(30)), "0")
    colours = class_colours(many)
    assert list(colours) == [str(k) for k in range(1, 30)]
    assert len(set(colours.values())) == 29
