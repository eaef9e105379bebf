"""What is done to labels and pixels to see what a network would learn by heart; all of it from a seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from surgery.artifact.errors import ConfigError
from surgery.study.pictures import Pictures, Pixels, Side

PIXELS = ("true", "shuffled", "random", "gaussian")
"""`shuffled`: one permutation of the positions for all images; `random`: one each; `gaussian`: noise of the
training images' mean and deviation by channel."""


def corrupt_labels(side: Side, share: float, classes: int, seed: int) -> Side:
    """Return a side where each label is, with some probability, a class drawn evenly from all.

    A drawn class may be the true one, so of c classes the share of wrong labels is about share · (1 − 1/c).

    Args:
        side: The images.
        share: Probability, 0–1; 1 makes all labels random.
        classes: Number of classes.
        seed: Of the draw.

    References:
        Zhang et al. 2017, arXiv:1611.03530, section 2.1 (partially corrupted and random labels).
    """
    rng = np.random.default_rng([seed, 1611])
    drawn = rng.integers(classes, size=len(side))
    hit = rng.random(len(side)) < share
    return replace(side, labels=np.where(hit, drawn, side.labels).astype(np.int64))


def permute_labels(side: Side, seed: int) -> Side:
    """Return a side with its labels dealt out anew: as many of each class, none for what is in the image."""
    order = np.random.default_rng([seed, 2017]).permutation(len(side))
    return replace(side, labels=side.labels[order])


def draw_signs(side: Side, seed: int) -> Side:
    """Return a side whose labels are fair coins, 0 and 1: the signs of the Rademacher complexity."""
    coins = np.random.default_rng([seed, 3030]).integers(2, size=len(side))
    return replace(side, labels=coins.astype(np.int64))


def change_pixels(pictures: Pictures, kind: str, seed: int) -> Pictures:
    """Return pictures whose pixels are of a kind of `PIXELS`; both sides are changed alike."""
    if kind == "true":
        return pictures
    rng = np.random.default_rng([seed, 703])
    _, height, width, _ = pictures.train.images.shape
    order = rng.permutation(height * width)
    mean = pictures.train.images.reshape(-1, 3).mean(0)  # (n, h, w, 3) -> (3,)
    deviation = pictures.train.images.reshape(-1, 3).std(0)

    def change(images: Pixels) -> Pixels:
        if kind == "gaussian":
            noise = rng.standard_normal(images.shape, np.float32) * deviation + mean
            drawn: Pixels = np.clip(noise, 0, 255).astype(np.uint8)
            return drawn
        flat = images.reshape(len(images), height * width, 3)  # (n, h, w, 3) -> (n, h*w, 3)
        if kind == "shuffled":
            flat = flat[:, order]
        else:
            flat = np.stack([each[rng.permutation(height * width)] for each in flat])
        back: Pixels = flat.reshape(images.shape)  # (n, h*w, 3) -> (n, h, w, 3)
        return back

    sides = (replace(side, images=change(side.images)) for side in (pictures.train, pictures.judged))
    return Pictures(pictures.classes, *sides)


def shuffle_blocks(pictures: Pictures, block: int, own: bool, seed: int) -> Pictures:
    """Return pictures cut into square blocks that have changed places.

    Args:
        pictures: Square images.
        block: Side of a block, pixels; the side of the image leaves the images as they are.
        own: One permutation for each image, drawn from the seed and the image; else one for all.
        seed: Of the permutations.

    Raises:
        ConfigError: If the blocks do not fill the image.

    References:
        Neyshabur et al. 2020, arXiv:2008.11687, section 3.1.
    """
    side = pictures.train.images.shape[1]
    check_block(side, block)
    count = (side // block) ** 2
    common = _draw_order(count, [seed, 2008, block])

    def shuffle(held: Side) -> Side:
        orders = np.tile(common, (len(held), 1))  # (n, count)
        if own:
            seeds = ([seed, 2008, block, int(name, 16)] for name in held.names)
            orders = np.stack([_draw_order(count, each) for each in seeds])
        return replace(held, images=move_blocks(held.images, block, orders))

    return Pictures(pictures.classes, shuffle(pictures.train), shuffle(pictures.judged))


def check_block(side: int, block: int) -> None:
    """Refuse blocks that do not fill an image.

    Raises:
        ConfigError: With the sides that do.
    """
    if block < 1 or side % block:
        fits = [k for k in range(1, side + 1) if side % k == 0]
        raise ConfigError(
            f"--blocks {block}: blocks of {block}×{block} do not fill an image of {side}×{side}",
            f"Sides that do: {', '.join(map(str, fits))}; or another --image-size.",
        )


def _draw_order(count: int, seed: list[int]) -> np.ndarray:
    """Return a permutation that moves something: of few blocks the drawn one may be the order they have."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(count)
    while count > 1 and (order == np.arange(count)).all():
        order = rng.permutation(count)
    return order


def move_blocks(images: Pixels, block: int, orders: np.ndarray) -> Pixels:
    """Put block `orders[i, k]` of image i at place k, row by row.

    Args:
        images: (n, s, s, 3).
        block: Side of a block.
        orders: (n, (s/block)²).
    """
    n, side = images.shape[:2]
    per = side // block
    cut = images.reshape(n, per, block, per, block, 3).swapaxes(
        2, 3
    )  # (n, s, s, 3) -> (n, per, per, b, b, 3)
    row = cut.reshape(n, per * per, block, block, 3)  # -> (n, count, b, b, 3)
    moved = row[np.arange(n)[:, None], orders]
    back = moved.reshape(n, per, per, block, block, 3).swapaxes(2, 3)  # -> (n, per, b, per, b, 3)
    return np.ascontiguousarray(back.reshape(n, side, side, 3))
