"""Blocks that change places, labels and pixels that are drawn."""

from __future__ import annotations

import numpy as np
import pytest

from surgery.artifact.errors import ConfigError
from surgery.study.noise import change_pixels, corrupt_labels, draw_signs, move_blocks, shuffle_blocks
from surgery.study.pictures import Pictures, Side


def noise(n: int = 5, side: int = 8) -> Pictures:
    rng = np.random.default_rng(0)
    sides = []
    for k in range(2):
        images = rng.integers(0, 256, (n, side, side, 3)).astype(np.uint8)
        sides.append(Side(images, np.arange(n) % 2, tuple(f"{k}{i:063x}" for i in range(n))))
    return Pictures(("a", "b"), *sides)


def blocks_of(image: np.ndarray, block: int) -> list[bytes]:
    side = len(image)
    return [
        image[y : y + block, x : x + block].tobytes()
        for y in range(0, side, block)
        for x in range(0, side, block)
    ]


def test_blocks_land_where_the_order_says():
    image = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(1, 4, 4, 3)
    moved = move_blocks(image, 2, np.array([[3, 0, 1, 2]]))
    assert np.array_equal(moved[0, :2, :2], image[0, 2:, 2:])
    assert np.array_equal(moved[0, :2, 2:], image[0, :2, :2])
    assert np.array_equal(moved[0, 2:, :2], image[0, :2, 2:])


@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("block", [1, 2, 4])
def test_shuffling_is_a_permutation_of_whole_blocks(block, each):
    before = noise()
    after = shuffle_blocks(before, block, each, 0)
    for one, other in ((before.train, after.train), (before.judged, after.judged)):
        assert not np.array_equal(one.images, other.images)
        assert np.array_equal(one.labels, other.labels)
        for a, b in zip(one.images, other.images, strict=True):
            assert sorted(blocks_of(a, block)) == sorted(blocks_of(b, block))


def test_a_block_of_the_whole_image_changes_nothing():
    before = noise()
    assert np.array_equal(shuffle_blocks(before, 8, True, 0).train.images, before.train.images)


def order_of(before: np.ndarray, after: np.ndarray, block: int) -> list[int]:
    cut = blocks_of(before, block)
    return [cut.index(piece) for piece in blocks_of(after, block)]


def test_one_order_for_all_images_or_one_each():
    before = noise()
    for each, count in ((False, 1), (True, 10)):
        after = shuffle_blocks(before, 2, each, 0)
        orders = {
            tuple(order_of(a, b, 2))
            for one, other in ((before.train, after.train), (before.judged, after.judged))
            for a, b in zip(one.images, other.images, strict=True)
        }
        assert len(orders) == count
    assert not np.array_equal(
        shuffle_blocks(before, 2, False, 1).train.images, shuffle_blocks(before, 2, False, 0).train.images
    )


def test_blocks_that_do_not_fill_the_image_are_refused():
    with pytest.raises(ConfigError, match=r"3×3 do not fill an image of 8×8\nSides that do: 1, 2, 4, 8"):
        shuffle_blocks(noise(), 3, False, 0)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_labels_are_corrupted_at_the_rate_asked_for(share):
    n, classes = 20_000, 10
    side = Side(np.zeros((n, 1, 1, 3), np.uint8), np.arange(n) % classes, ("",) * n)
    found = corrupt_labels(side, share, classes, 0)
    wrong = float((found.labels != side.labels).mean())
    assert wrong == pytest.approx(share * (1 - 1 / classes), abs=0.015)
    counts = np.bincount(found.labels, minlength=classes) / n
    assert counts == pytest.approx(np.full(classes, 0.1), abs=0.015)
    assert np.array_equal(found.labels, corrupt_labels(side, share, classes, 0).labels)


def test_signs_are_fair_coins():
    side = Side(np.zeros((10_000, 1, 1, 3), np.uint8), np.zeros(10_000, np.int64), ("",) * 10_000)
    coins = draw_signs(side, 0).labels
    assert set(coins) == {0, 1}
    assert coins.mean() == pytest.approx(0.5, abs=0.02)
    assert not np.array_equal(coins, draw_signs(side, 1).labels)


def test_shuffled_pixels_share_one_order_and_random_pixels_do_not():
    before = noise()
    for kind, count in (("shuffled", 1), ("random", 10)):
        after = change_pixels(before, kind, 0)
        orders = set()
        for one, other in ((before.train, after.train), (before.judged, after.judged)):
            for a, b in zip(one.images, other.images, strict=True):
                assert sorted(blocks_of(a, 1)) == sorted(blocks_of(b, 1))
                orders.add(tuple(order_of(a, b, 1)))
        assert len(orders) == count, kind


def test_gaussian_images_have_the_mean_of_the_real_ones():
    before = noise(n=60)
    after = change_pixels(before, "gaussian", 0)
    assert after.train.images.mean() == pytest.approx(before.train.images.mean(), abs=4)
    assert not np.array_equal(after.train.images[0], after.train.images[1])
    assert change_pixels(before, "true", 0) is before
