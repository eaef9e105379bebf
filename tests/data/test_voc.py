"""Pascal VOC as it is handed out, and as CVAT writes it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from surgery.artifact.errors import DataError
from surgery.data.check import check_table
from surgery.data.matching import match_targets
from surgery.data.readers import read_table
from surgery.data.targets import resolve_target

LABEL_MAP = "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:128,0,0:head,paw:run\ndog:0,128,0::\n"
PALETTE = np.asarray([[0, 0, 0], [128, 0, 0], [0, 128, 0]], np.uint8)
MASK = np.tile(np.asarray([0, 0, 0, 0, 0, 15, 15, 15, 15, 255, 255, 20], np.uint8), (8, 1))


@pytest.fixture
def voc(data, write_image):
    """Three images to train on, two for val, one without a mask."""
    names = [f"2007_{i:06}" for i in range(6)]
    for i, name in enumerate(names):
        write_image(f"JPEGImages/{name}.jpg")
        if i < 5:
            save_palette(data / "SegmentationClass" / f"{name}.png", MASK)
    write_list(data, "train", names[:3])
    write_list(data, "val", names[3:5])
    write_list(data, "trainval", names[:5])
    return data


def save_palette(path, mask):
    """Save indices as VOC does, with a palette."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(mask)
    image.putpalette(np.random.default_rng(0).integers(0, 256, 768).astype(np.uint8).tobytes())
    image.save(path)


def write_list(data, name, stems):
    path = data / "ImageSets" / "Segmentation" / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{stem}\n" for stem in stems))


def splits(table):
    return {split: len(table.of(split)) for split in ("train", "val", "test") if table.of(split)}


@pytest.mark.parametrize("kit", ["", "VOC2012", "VOCdevkit/VOC2012"])
def test_voc_is_read_with_its_classes_and_borders(voc, tmp_path, kit):
    root = tmp_path / "root"
    (root / kit).parent.mkdir(parents=True, exist_ok=True)
    voc.rename(root / kit)
    table = read_table(root)
    assert (table.task, len(table.classes), table.classes[15]) == ("segment", 21, "person")
    assert (splits(table), table.split_rule) == ({"train": 3, "val": 2}, "given")
    np.testing.assert_array_equal(table.items[0].mask.read(), MASK)
    assert [p.kind for p in table.warnings] == ["images not listed"]
    assert not check_table(table).problems


def test_borders_are_ignored_without_being_asked_for(voc):
    table = read_table(voc)
    for chosen, person in (((), 15), (("person",), 1)):
        target = resolve_target(table, chosen)
        encoded = target.encode_mask(table.items[0].mask.read())
        assert encoded[0, [5, 9]].tolist() == [person, 255]
        assert not check_table(table, target).problems
    assert resolve_target(table, (), ("255", "cat")).ignored_values == (255,)
    manifest = SimpleNamespace(
        name="voc", version=1, task="segment", data={"ignored": []}, output=target.output
    )
    assert match_targets(manifest, table) == target


def test_a_value_beyond_the_classes_is_still_a_problem(voc):
    table = read_table(voc)
    changed = MASK.copy()
    changed[0, 0] = 21
    save_palette(voc / "SegmentationClass/2007_000001.png", changed)
    assert [p.message for p in check_table(table).problems] == ["values 21 have no class; 0–20 have"]
    with pytest.raises(DataError, match="values 21 have no class"):
        resolve_target(table).encode_mask(changed)


def test_a_test_list_without_masks_is_left_out(voc, write_image):
    write_list(voc, "test", ["2007_000005"])
    table = read_table(voc)
    assert splits(table) == {"train": 3, "val": 2}
    assert "test without masks" in [p.kind for p in table.warnings]


def test_train_is_trainval_without_val(voc):
    (voc / "ImageSets/Segmentation/train.txt").unlink()
    table = read_table(voc)
    assert splits(table) == {"train": 3, "val": 2}
    assert not table.problems


@pytest.mark.parametrize("name", ["trainval", "default", None])
def test_without_splits_val_is_drawn(voc, name):
    for path in (voc / "ImageSets/Segmentation").iterdir():
        path.unlink()
    if name:
        write_list(voc, name, [f"2007_{i:06}" for i in range(5)])
    table = read_table(voc)
    assert sum(splits(table).values()) == 5
    assert table.of("val")
    assert table.split_rule.startswith("80/20")


def test_listed_images_without_file_or_mask_are_problems(voc):
    (voc / "JPEGImages/2007_000001.jpg").unlink()
    (voc / "SegmentationClass/2007_000002.png").unlink()
    problems = check_table(read_table(voc)).problems
    assert [(p.kind, p.path.name, p.message) for p in problems] == [
        ("image missing", "train.txt", "line 2: JPEGImages/ holds no '2007_000001'"),
        ("mask missing", "2007_000002.jpg", "no mask has its name in train"),
    ]


@pytest.mark.parametrize("painted", [True, False], ids=["colours", "indices"])
def test_cvat_names_its_labels_in_a_label_map(data, write_image, painted):
    mask = np.random.default_rng(1).integers(0, 3, (8, 12)).astype(np.uint8)
    (data / "SegmentationClass").mkdir(parents=True)
    for i in range(5):
        write_image(f"JPEGImages/frame 0{i}.png")
        Image.fromarray(PALETTE[mask] if painted else mask).save(data / f"SegmentationClass/frame 0{i}.png")
    border = np.full((8, 12, 3), (224, 224, 192), np.uint8) if painted else np.full((8, 12), 255, np.uint8)
    Image.fromarray(border).save(data / "SegmentationClass/frame 03.png")
    write_list(data, "default", [f"frame 0{i}" for i in range(5)])
    (data / "labelmap.txt").write_text(LABEL_MAP)
    table = read_table(data)
    assert table.classes == ("background", "cat", "dog")
    np.testing.assert_array_equal(table.items[0].mask.read(), mask)
    assert (table.items[3].mask.read() == 255).all()
    assert not check_table(table).problems


def test_values_that_are_not_vocs_need_a_list(voc):
    save_palette(voc / "SegmentationClass/2007_000000.png", MASK + 30)
    with pytest.raises(DataError, match=r"no classes\.txt"):
        read_table(voc)
    (voc / "classes.txt").write_text("".join(f"class {i}\n" for i in range(60)))
    assert len(read_table(voc).classes) == 60


def test_masks_of_0_and_255_are_no_borders(voc):
    for path in (voc / "SegmentationClass").iterdir():
        save_palette(path, np.where(MASK > 0, np.uint8(255), np.uint8(0)))
    table = read_table(voc)
    assert (table.classes, table.ignored_values) == (("background", "foreground"), ())


def test_two_years_need_a_choice(voc, tmp_path):
    (tmp_path / "kit").mkdir()
    voc.rename(tmp_path / "kit/VOC2007")
    for name in ("JPEGImages", "SegmentationClass"):
        (tmp_path / "kit/VOC2012" / name).mkdir(parents=True)
    with pytest.raises(DataError, match="not one folder") as caught:
        read_table(tmp_path / "kit")
    assert "VOC2007" in caught.value.hint
