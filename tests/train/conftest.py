"""Small data sets that can be learnt in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from png_files import write_png


@pytest.fixture
def stripes(tmp_path: Path) -> Path:
    """Two classes, lying and standing stripes in noise: 24 train and 12 val images of 40×40."""
    rng = np.random.default_rng(0)
    root = tmp_path / "stripes"
    for split, count in (("train", 12), ("val", 6)):
        for label in ("lying", "standing"):
            for i in range(count):
                wave = (np.arange(40) + rng.integers(8)) // 4 % 2 * 120
                plane = np.tile(wave[:, None], (1, 40)) if label == "lying" else np.tile(wave, (40, 1))
                noise = rng.integers(0, 80, (40, 40, 3))
                pixels = (plane[:, :, None] + noise).astype(np.uint8)
                write_png(root / split / label / f"{i}.png", pixels)
    return root


@pytest.fixture
def boxes(tmp_path: Path) -> Path:
    """Bright boxes on a dark ground, with masks and a void border: 12 train, 4 val, two sizes."""
    rng = np.random.default_rng(1)
    root = tmp_path / "boxes"
    (root).mkdir()
    (root / "classes.txt").write_text("ground\nbox\nvoid\n")
    for split, count in (("train", 12), ("val", 4)):
        for i in range(count):
            width, height = ((48, 40), (40, 37))[i % 2]
            pixels = rng.integers(0, 90, (height, width, 3)).astype(np.uint8)
            mask = np.zeros((height, width), np.uint8)
            x, y = rng.integers(2, 20, 2)
            pixels[y : y + 14, x : x + 14] += 120
            mask[y : y + 14, x : x + 14] = 1
            mask[:, :2] = 2
            write_png(root / split / "images" / f"{i}.png", pixels)
            write_png(root / split / "masks" / f"{i}.png", mask)
    return root
