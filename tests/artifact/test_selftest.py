"""A network is asked again what it was asked when it was made."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from surgery.artifact.errors import StoreError
from surgery.artifact.selftest import SELFTEST_FILE, check_selftest, read_selftest, write_selftest

IMAGE = np.random.default_rng(0).integers(0, 256, (300, 400, 3)).astype(np.uint8)


def network(shift: float = 0.0, scale: float = 10.0) -> Any:
    """Logits are the image's mean colour, scaled, and shifted."""

    def run(images: np.ndarray) -> tuple[np.ndarray, None]:
        return (images.mean((1, 2)) / 255 * scale + shift).astype(np.float32), None

    return SimpleNamespace(run=run, path=Path("model.onnx"))


def test_the_same_network_passes_and_another_does_not(tmp_path: Path) -> None:
    write_selftest(tmp_path, network(), IMAGE, fixed=True)
    asked = read_selftest(tmp_path)
    assert asked is not None
    assert (asked[0] == IMAGE).all()
    check_selftest(asked, network(), "fp32")
    check_selftest(asked, network(0.004), "fp32")
    for other in (network(0.02), network(np.nan), network(scale=9)):
        with pytest.raises(StoreError, match="test image"):
            check_selftest(asked, other, "fp32")
    check_selftest(asked, network(0.02), "fp16")
    check_selftest(asked, network(1), "int8")
    with pytest.raises(StoreError, match="test image"):
        check_selftest(asked, network(5), "int8")


def test_a_network_of_free_size_is_asked_a_cutting(tmp_path: Path) -> None:
    write_selftest(tmp_path, network(), IMAGE, fixed=False)
    asked = read_selftest(tmp_path)
    assert asked is not None
    assert asked[0].shape == (256, 256, 3)


def test_another_shape_of_the_answer_is_refused(tmp_path: Path) -> None:
    write_selftest(tmp_path, network(), IMAGE, fixed=True)
    asked = read_selftest(tmp_path)
    assert asked is not None
    with pytest.raises(StoreError, match="test image"):
        check_selftest((asked[0], asked[1][:2]), network(), "fp32")


def test_early_versions_have_none(tmp_path: Path) -> None:
    assert read_selftest(tmp_path) is None


@pytest.mark.parametrize("damage", ["empty", "text", "one byte", "cut", "other names", "pickled"])
def test_a_damaged_file_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / SELFTEST_FILE
    write_selftest(tmp_path, network(), IMAGE, fixed=True)
    whole = bytearray(path.read_bytes())
    middle = len(whole) // 2
    if damage == "other names":
        np.savez(path, pixels=IMAGE)
    elif damage == "pickled":
        np.savez(path, image=np.array([{}], object), logits=np.zeros(3, np.float32))
    else:
        altered = {"empty": b"", "text": b"none", "cut": bytes(whole[:middle])}
        whole[middle] ^= 1
        path.write_bytes(altered.get(damage, bytes(whole)))
    with pytest.raises(StoreError):
        read_selftest(tmp_path)
