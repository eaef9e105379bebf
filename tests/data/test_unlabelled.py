"""Images without labels: found below a folder, checked, and compared with the labelled ones."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from surgery.artifact.errors import DataError
from surgery.data import unlabelled
from surgery.data.readers import read_table
from surgery.data.unlabelled import colour_depth, compare_domains, find_unlabelled, read_unlabelled


def draw(path: Path, seed: int, mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (12, 14, 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    for k, name in enumerate(("a/1.png", "b/deep/2.jpg", "3.png")):
        draw(tmp_path / "target" / name, 100 + k)
    return tmp_path / "target"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for k in range(8):
        draw(tmp_path / "source" / ("x" if k % 2 else "y") / f"{k}.png", k)
    return tmp_path / "source"


def read(*roots: Path, skip_bad: bool = False, judged: int = 9):
    return read_unlabelled(roots, "classify", ("x", "y"), judged, skip_bad)


def test_a_folder_is_read_to_its_depths_and_its_names_are_no_labels(target):
    table, notes = read(target)
    assert sorted(item.image.name for item in table.of("train")) == ["1.png", "2.jpg", "3.png"]
    assert all(item.truth is None and item.mask is None for item in table.items)
    assert notes == []


def test_masks_beside_images_are_no_images(tmp_path):
    for k in range(2):
        draw(tmp_path / "d" / "images" / f"{k}.png", k)
        draw(tmp_path / "d" / "masks" / f"{k}.png", k, "L")
    found = find_unlabelled([tmp_path / "d"])
    assert {path.parent.name for path in found.images} == {"images"}
    assert "masks" in found.notes[0]


def test_a_folder_called_masks_of_its_own_is_read(tmp_path):
    draw(tmp_path / "d" / "masks" / "venice.png", 1)
    assert len(find_unlabelled([tmp_path / "d"]).images) == 1


def test_a_link_to_itself_is_no_endless_folder(target):
    (target / "a" / "loop").symlink_to(target)
    assert len(find_unlabelled([target]).images) == 3


def test_criteria_are_measured_on_some_evenly_spread(tmp_path):
    for k in range(10):
        draw(tmp_path / "many" / f"{k}.png", k)
    table, _ = read(tmp_path / "many", judged=5)
    assert len(table.of("train")) == 10
    assert [item.image.stem for item in table.of("val")] == ["0", "2", "4", "6", "8"]


def test_nothing_there_nothing_in_it_and_one_image(tmp_path, target):
    with pytest.raises(DataError, match="no such file or folder"):
        read(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images without labels"):
        read(tmp_path / "empty")
    with pytest.raises(DataError, match="1 image that can be read") as caught:
        read(target / "3.png")
    assert "dozens" in caught.value.hint


def test_a_folder_that_may_not_be_read_is_named(target, monkeypatch):
    def refuse(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(unlabelled, "files_in", refuse)
    with pytest.raises(DataError, match=r"target: cannot be read \(Permission denied\)"):
        find_unlabelled([target])


def test_unreadable_images_stop_the_run_unless_told(target):
    (target / "broken.png").write_bytes(b"\x89PNG no")
    with pytest.raises(DataError, match="1 of 4 images cannot be read") as caught:
        read(target)
    assert "broken.png" in caught.value.message
    assert "--skip-bad" in caught.value.hint
    table, notes = read(target, skip_bad=True)
    assert len(table.of("train")) == 3
    assert "1 images that cannot be read" in notes[0]


def test_the_same_images_are_no_other_domain(source, tmp_path):
    table = read_table(source)
    shutil.copytree(source, tmp_path / "copy")
    copies, _ = read(tmp_path / "copy")
    with pytest.raises(DataError, match="every one of its 8 images is one of the source"):
        compare_domains(table, copies)


def test_a_few_of_the_same_images_are_said(source, target):
    shutil.copy(source / "y" / "0.png", target)
    (note,) = compare_domains(read_table(source), read(target)[0])
    assert note.startswith("1 of the target's 4 images are images of the source")


def test_other_bits_per_channel_are_refused_and_grey_is_said(source, tmp_path):
    for k in range(3):
        pixels = np.random.default_rng(k).integers(0, 60_000, (9, 9)).astype(np.uint16)
        (tmp_path / "deep").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "deep" / f"{k}.png")
        draw(tmp_path / "grey" / f"{k}.png", 50 + k, "L")
    table = read_table(source)
    with pytest.raises(DataError, match="16 bits per channel, but 8 bits"):
        compare_domains(table, read(tmp_path / "deep")[0])
    (note,) = compare_domains(table, read(tmp_path / "grey")[0])
    assert "the source is in colour, the target grey" in note


@pytest.mark.parametrize(
    ("mode", "depth"), [("RGB", (8, False)), ("L", (8, True)), ("1", (1, True)), ("P", (8, False))]
)
def test_colour_depth_stands_in_the_header(tmp_path, mode, depth):
    assert colour_depth(draw(tmp_path / "x.png", 0, mode)) == depth
