"""Pictures that can be learnt in a second, in memory and on disk."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from surgery.study.pictures import Pictures, Side

CLASSES = ("blue", "green", "red", "yellow")
COLOURS = np.array([(40, 40, 200), (40, 200, 40), (200, 40, 40), (200, 200, 40)], np.float64)


def draw_side(each: int, seed: int) -> Side:
    """Return `each` noisy images of 32×32 of four colours."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(4), each)
    images = np.clip(COLOURS[labels][:, None, None] + rng.normal(0, 40, (len(labels), 32, 32, 3)), 0, 255)
    names = tuple(f"{seed:08x}{k:056x}" for k in range(len(labels)))
    return Side(images.astype(np.uint8), labels.astype(np.int64), names)


@pytest.fixture
def pictures() -> Pictures:
    """Four colours: 12 images of each to train on, 6 to judge by."""
    return Pictures(CLASSES, draw_side(12, 1), draw_side(6, 2))


@pytest.fixture
def colours(tmp_path: Path, pictures: Pictures) -> Path:
    """The same on disk, in folders of classes with train and val."""
    root = tmp_path / "colours"
    for split, side in (("train", pictures.train), ("val", pictures.judged)):
        for k, (image, label) in enumerate(zip(side.images, side.labels, strict=True)):
            path = root / split / CLASSES[label] / f"{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(path), image[:, :, ::-1])
    return root
