"""Outlines and run lengths give the mask again; probabilities are those of the logits."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco

from surgery.artifact.manifest import OutputSpec
from surgery.artifact.shapes import class_probabilities, mask_polygons, mask_run_lengths

CARS = OutputSpec("sigmoid", ("rest", "car"), (0, 1), "rest")
STREET = OutputSpec("softmax", ("sky", "car", "void"), (3, 7, 300), "void")


def blobs(seed: int) -> np.ndarray:
    """Return a mask of random pieces, with holes and islands in them."""
    noise = np.random.default_rng(seed).random((40, 60)).astype(np.float32)
    return (cv2.GaussianBlur(noise, (7, 7), 0) > 0.5).astype(np.uint8)


@pytest.mark.parametrize("seed", range(8))
def test_filled_outlines_without_their_holes_are_the_mask(seed: int) -> None:
    mask = blobs(seed)
    again = np.zeros_like(mask)
    pieces = mask_polygons(mask, CARS, min_pixels=1)
    for piece in pieces:
        own = np.zeros_like(mask)
        cv2.fillPoly(own, [np.array(piece["polygon"])], 1)
        for hole in piece["holes"]:
            cv2.fillPoly(own, [np.array(hole)], 0)
            cv2.polylines(own, [np.array(hole)], True, 1)
        assert own.sum() == piece["pixels"]
        again |= own
    assert (again == mask).all()
    assert sum(piece["pixels"] for piece in pieces) == mask.sum()
    assert any(piece["holes"] for piece in mask_polygons(blobs(0), CARS, 1))


def test_a_square_has_four_corners_and_small_pieces_are_left_out() -> None:
    mask = np.zeros((20, 30), np.uint16)
    mask[5:15, 10:22] = 7
    mask[0, 0] = 3
    (piece,) = mask_polygons(mask, STREET)
    assert sorted(piece["polygon"]) == [[10, 5], [10, 14], [21, 5], [21, 14]]
    assert (piece["label"], piece["holes"], piece["pixels"]) == ("car", [], 120)


@pytest.mark.parametrize("seed", range(4))
def test_run_lengths_are_those_of_coco(seed: int) -> None:
    mask = blobs(seed)
    mask[0, 0] = seed % 2
    lengths = mask_run_lengths(mask, CARS)["car"]
    packed = coco.frPyObjects(dict(lengths), *lengths["size"])
    assert (coco.decode(packed) == mask).all()


def test_run_lengths_of_a_full_and_an_empty_mask() -> None:
    assert mask_run_lengths(np.ones((2, 3), np.uint8), CARS)["car"] == {"size": [2, 3], "counts": [0, 6]}
    assert mask_run_lengths(np.zeros((2, 3), np.uint8), CARS)["car"]["counts"] == [6]


def test_probabilities_are_bytes_of_each_class_but_the_rest() -> None:
    logits = np.array([[[0.0, 100.0], [-100.0, np.log(3)]]], np.float32)
    (car,) = class_probabilities(logits, (2, 2), CARS).values()
    assert car.tolist() == [[128, 255], [0, 191]]
    both = class_probabilities(np.zeros((3, 2, 2), np.float32), (4, 2), STREET)
    assert list(both) == ["sky", "car"]
    assert both["sky"].shape == (2, 4)
    assert (both["sky"] == 85).all()
