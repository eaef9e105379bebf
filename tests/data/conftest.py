"""Small datasets on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Write = Callable[..., Path]


@pytest.fixture
def write_image(tmp_path: Path) -> Write:
    """Write an image below tmp_path/data; without `shade`, each differs from all others."""
    count = iter(range(1, 250))

    def write(name: str, size: tuple[int, int] = (12, 8), shade: int | None = None) -> Path:
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (n := next(count) if shade is None else shade, 255 - n, 90)).save(path)
        return path

    return write


@pytest.fixture
def write_mask(tmp_path: Path) -> Write:
    """Write an index mask below tmp_path/data; `values` fill its columns from the left."""

    def write(name: str, values: tuple[int, ...] = (0, 1), size: tuple[int, int] = (12, 8)) -> Path:
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        columns = np.resize(np.asarray(values, np.uint8), size[0])
        Image.fromarray(np.tile(columns, (size[1], 1))).save(path)
        return path

    return write


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def pairs(data: Path, write_image: Write, write_mask: Write) -> Path:
    """Three training and two validation pairs of the classes road, car and void."""
    for split, count in (("train", 3), ("val", 2)):
        for i in range(count):
            write_image(f"{split}/images/{i}.png")
            write_mask(f"{split}/masks/{i}.png", (0, 1, 2))
    (data / "classes.txt").write_text("road\ncar\nvoid\n")
    return data
