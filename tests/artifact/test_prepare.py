"""The size rules: which pixels of an image reach the network."""

from __future__ import annotations

import numpy as np
import pytest

from surgery.artifact.errors import ImageError
from surgery.artifact.image import input_size, prepare_image
from surgery.artifact.manifest import InputSpec

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def ramp(width: int, height: int) -> np.ndarray:
    """Red is the column, green the row."""
    image = np.zeros((height, width, 3), np.uint8)
    image[:, :, 0] = np.arange(width)
    image[:, :, 1] = np.arange(height)[:, None]
    return image


def test_crop_takes_the_central_share() -> None:
    # 200×100 to a square: the largest box is 100 wide from 50 on; half of it lies at 75 and 25.
    crop = prepare_image(ramp(200, 100), InputSpec("crop", 50, 50, crop_share=0.5))
    np.testing.assert_array_equal(crop, ramp(200, 100)[25:75, 75:125])


def test_crop_has_the_aspect_of_its_target() -> None:
    crop = prepare_image(ramp(200, 100), InputSpec("crop", 60, 15, crop_share=1.0))
    # The largest 4:1 box is 200×50 from row 25 on.
    assert crop.shape == (15, 60, 3)
    assert abs(float(crop[:, :, 1].mean()) - 49.5) < 0.6
    assert crop[0, :, 1].max() <= 28


@pytest.mark.parametrize("share", [0.1, 0.875, 1.0])
@pytest.mark.parametrize("size", [(1, 1), (10_000, 10), (10, 10_000), (3, 2), (7, 13), (333, 101)])
def test_crop_of_any_size(size: tuple[int, int], share: float) -> None:
    image = np.full((size[1], size[0], 3), 9, np.uint8)
    crop = prepare_image(image, InputSpec("crop", 224, 160, crop_share=share))
    assert crop.shape == (160, 224, 3)
    assert (crop == 9).all()


def test_resize_stretches_all_of_it() -> None:
    image = np.zeros((10, 20, 3), np.uint8)
    image[:, 10:] = 200
    small = prepare_image(image, InputSpec("resize", 4, 6))
    assert small.shape == (6, 4, 3)
    assert small[:, 0].max() == 0
    assert small[:, 3].min() == 200


def test_scaling_down_averages() -> None:
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)[:, :, None].repeat(3, 2)
    small = prepare_image(board, InputSpec("resize", 8, 8))
    assert np.abs(small.astype(int) - 127).max() <= 2


def test_native_is_the_image_itself() -> None:
    assert prepare_image(RGB, InputSpec("native")) is RGB


@pytest.mark.parametrize("size", [(4000, 3000), (10_000, 10), (1, 9_999_999), (9_999_999, 1), (7, 5)])
@pytest.mark.parametrize("limit", [1, 34, 35, 1000, 1_000_000])
def test_native_holds_no_more_than_its_limit(size: tuple[int, int], limit: int) -> None:
    width, height = input_size(size, InputSpec("native", max_pixels=limit))
    assert width >= 1
    assert height >= 1
    assert width * height <= limit
    if limit == 1_000_000 and size == (4000, 3000):
        assert (width, height) == (1154, 866)


def test_native_is_scaled_as_announced() -> None:
    spec = InputSpec("native", max_pixels=20)
    width, height = input_size((7, 5), spec)
    assert prepare_image(RGB, spec).shape == (height, width, 3) == (3, 5, 3)


@pytest.mark.parametrize("image", [RGB[:, :, 0], RGB[:, :, :2], RGB.astype(np.float32), RGB[:0], RGB[None]])
def test_other_arrays_are_refused(image: np.ndarray) -> None:
    with pytest.raises(ImageError, match="uint8"):
        prepare_image(image, InputSpec("native"))


def test_specs_are_checked() -> None:
    assert InputSpec("native").problems() == []
    assert len(InputSpec("crop", 0, -1).problems()) >= 2
    assert InputSpec("resize").problems()
