"""Public datasets as they lie on disk, where $SURGERY_DATA says."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from surgery.data.check import check_table
from surgery.data.readers import read_table
from surgery.data.targets import resolve_target

pytestmark = pytest.mark.data


@pytest.fixture
def public() -> Path:
    return Path(os.environ["SURGERY_DATA"])


def test_camvid_is_read_as_masks(public):
    table = read_table(public / "camvid")
    assert (table.task, len(table.classes), table.split_rule) == ("segment", 12, "given")
    assert (len(table.of("train")), len(table.of("val"))) == (367, 101)
    report = check_table(table, resolve_target(table, ("car",), ("unlabelled",)))
    assert not report.problems
    assert report.summary["classes"]["car"]["train"] == 3719877


def test_hymenoptera_is_read_with_its_gif(public):
    table = read_table(public / "hymenoptera")
    assert (table.task, table.classes) == ("classify", ("ants", "bees"))
    assert (len(table.of("train")), len(table.of("val"))) == (245, 153)
    assert any(item.image.suffix == ".gif" for item in table.items)
    assert not check_table(table).problems


def test_digits_draw_val_from_train(public, tmp_path):
    with tarfile.open(public / "digits.tar") as archive:
        wanted = [m for m in archive if m.name.startswith("digits/mnist/") and m.isfile()]
        archive.extractall(tmp_path, wanted[::20], filter="data")
    table = read_table(tmp_path / "digits" / "mnist")
    assert table.classes == tuple("0123456789")
    assert table.of("test")
    assert all("train" in item.image.parts for item in table.of("val"))
