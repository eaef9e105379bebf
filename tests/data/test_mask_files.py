"""Masks in colours and of two values are read for what they are; others are refused with a way out."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from surgery.artifact.errors import DataError
from surgery.data.check import check_table
from surgery.data.formats.class_lists import find_class_lists
from surgery.data.masks import BinaryMask, ColourMask, IndexMask
from surgery.data.readers import read_table

COLOURS = np.asarray([[128, 64, 128], [0, 0, 192], [64, 0, 128]], np.uint8)
"""Road, pavement and car of CamVid."""
TABLES = {
    "class_dict.csv": "name,r,g,b\nroad,128,64,128\npavement, 0, 0, 192\ncar,64,0,128\n",
    "label_colors.txt": "128 64 128\troad\n0 0 192\t\tpavement\n64 0 128 car\n",
    "labelmap.txt": "# label:color_rgb:parts:actions\nroad:128,64,128::\npavement:0,0,192::\ncar:64,0,128::\n",
    "classes.txt": "road 128 64 128\npavement #0000c0\ncar 64,0,128\n",
}
CLASSES = ("road", "pavement", "car")


def indices(seed, values=3, size=(8, 12)):
    return np.random.default_rng(seed).integers(0, values, size).astype(np.uint8)


def fill(data, write_image, paint, count=4, values=3):
    """Write images and the masks that `paint` makes of indices; return the indices by name."""
    drawn = {}
    (data / "masks").mkdir(parents=True)
    for i in range(count):
        write_image(f"images/{i}.jpg")
        drawn[f"{i}.jpg"] = indices(i, values)
        paint(drawn[f"{i}.jpg"]).save(data / "masks" / f"{i}.png")
    return drawn


def palette(colours):
    """Return what paints indices with a palette."""

    def paint(mask):
        image = Image.fromarray(mask)
        image.putpalette(colours.tobytes())
        return image

    return paint


def assert_masks(table, drawn, kind):
    assert len(table.items) == len(drawn)
    for item in table.items:
        assert isinstance(item.mask, kind)
        np.testing.assert_array_equal(item.mask.read(), drawn[item.image.name])
    assert not check_table(table).problems


@pytest.mark.parametrize("name", TABLES)
def test_every_table_of_colours_is_read(data, write_image, name):
    drawn = fill(data, write_image, lambda mask: Image.fromarray(COLOURS[mask]))
    (data / name).write_text(TABLES[name])
    table = read_table(data)
    assert (table.task, table.classes) == ("segment", CLASSES)
    assert_masks(table, drawn, ColourMask)


def test_a_palette_is_followed_where_its_order_is_another(data, write_image):
    order = [2, 0, 1]
    drawn = fill(data, write_image, palette(COLOURS[order]))
    (data / "class_dict.csv").write_text(TABLES["class_dict.csv"])
    assert_masks(read_table(data), {name: np.take(order, mask) for name, mask in drawn.items()}, ColourMask)


@pytest.mark.parametrize("paint", [Image.fromarray, palette(COLOURS)], ids=["grey", "palette"])
def test_a_table_of_colours_may_name_values_too(data, write_image, paint):
    drawn = fill(data, write_image, paint)
    (data / "class_dict.csv").write_text(TABLES["class_dict.csv"])
    assert_masks(read_table(data), drawn, IndexMask)


def test_grey_tones_may_be_colours(data, write_image):
    drawn = fill(data, write_image, lambda mask: Image.fromarray(mask * 100))
    (data / "classes.txt").write_text("sky 0 0 0\nwall 100 100 100\ntree #c8c8c8\n")
    assert_masks(read_table(data), drawn, ColourMask)


def test_names_without_colours_leave_room_for_a_table(data, write_image):
    drawn = fill(data, write_image, lambda mask: Image.fromarray(COLOURS[mask]))
    (data / "classes.txt").write_text("a\nb\nc\n")
    (data / "labelmap.txt").write_text(TABLES["labelmap.txt"])
    table = read_table(data)
    assert table.classes == CLASSES
    assert_masks(table, drawn, ColourMask)


def test_colours_that_the_table_lacks_are_told_with_their_pixels(data, write_image):
    fill(data, write_image, lambda mask: Image.fromarray(COLOURS[mask]))
    (data / "class_dict.csv").write_text(TABLES["class_dict.csv"])
    other = COLOURS[indices(0)]
    other[0, :5], other[1, 0] = (1, 2, 3), (9, 9, 9)
    Image.fromarray(other).save(data / "masks/0.png")
    problems = check_table(read_table(data)).problems
    assert [(p.kind, p.path.name) for p in problems] == [("unreadable mask", "0.png")]
    assert problems[0].message == "2 colours have no class: (1, 2, 3): 5 pixels, (9, 9, 9): 1 pixels"


def test_colours_without_a_table_say_what_to_write(data, write_image):
    fill(data, write_image, lambda mask: Image.fromarray(COLOURS[mask]))
    with pytest.raises(DataError, match="masks in colours") as caught:
        read_table(data)
    assert "name r g b" in caught.value.hint


def test_a_changed_table_of_colours_changes_the_fingerprint(data, write_image):
    fill(data, write_image, lambda mask: Image.fromarray(COLOURS[mask]))
    (data / "classes.txt").write_text(TABLES["classes.txt"])
    first = read_table(data).fingerprint()
    (data / "classes.txt").write_text("road 128 64 128\npavement 64 0 128\ncar 0 0 192\n")
    assert read_table(data).fingerprint() != first


@pytest.mark.parametrize("high", [1, 255])
def test_masks_of_two_values_need_no_names(data, write_image, high):
    drawn = fill(data, write_image, lambda mask: Image.fromarray(mask * np.uint8(high)), values=2)
    table = read_table(data)
    assert table.classes == ("background", "foreground")
    assert_masks(table, drawn, BinaryMask)


def test_masks_of_two_values_may_be_named(data, write_image):
    drawn = fill(data, write_image, lambda mask: Image.fromarray(mask * np.uint8(255)), values=2)
    (data / "classes.txt").write_text("skin\nlesion\n")
    table = read_table(data)
    assert table.classes == ("skin", "lesion")
    assert_masks(table, drawn, BinaryMask)


def test_many_empty_masks_do_not_hide_the_two_values(data, write_image):
    drawn = fill(data, write_image, lambda mask: Image.fromarray(mask * np.uint8(255)), 40, values=1)
    drawn["7.jpg"] = indices(7, 2)
    Image.fromarray(drawn["7.jpg"] * np.uint8(255)).save(data / "masks/7.png")
    assert_masks(read_table(data), drawn, BinaryMask)


def test_a_third_value_among_two_is_a_problem(data, write_image, write_mask):
    fill(data, write_image, lambda mask: Image.fromarray(mask * np.uint8(255)), 40, values=2)
    write_mask("masks/7.png", (0, 128, 255))
    problems = check_table(read_table(data)).problems
    assert [(p.kind, p.path.name) for p in problems] == [("unreadable mask", "7.png")]
    assert "it holds 0, 128, 255" in problems[0].message


def test_other_values_need_names(data, write_image):
    fill(data, write_image, lambda mask: Image.fromarray(mask * np.uint8(100)))
    with pytest.raises(
        DataError, match=r"no classes\.txt, class_dict\.csv, label_colors\.txt or labelmap\.txt"
    ):
        read_table(data)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("classes.txt", "a 1 2 3\nb\n", "line 2: 'b' has no colour, but line 1 has"),
        ("classes.txt", "a 1 2 3\nb 1 2 3\n", r"line 2: '\(1, 2, 3\)' is given on line 1 already"),
        ("classes.txt", "a 1 2 300\n", "line 1: '1,2,300' is no colour"),
        ("class_dict.csv", "name,r,g,b\na,1,2\n", "line 2: 'a,1,2' is not name,r,g,b"),
        ("label_colors.txt", "1 2 3 a\n4 5 b\n", "line 2: '4 5 b' is not"),
        ("labelmap.txt", "a:1,2::\n", "line 1: '1,2' is no colour"),
        ("labelmap.txt", "# nothing\n", "is empty"),
    ],
)
def test_a_wrong_table_names_the_line(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        find_class_lists([tmp_path])


def test_many_classes_need_sixteen_bits(tmp_path):
    Image.fromarray(COLOURS[[[0, 2]]]).save(tmp_path / "m.png")
    mask = ColourMask(tmp_path / "m.png", (((128, 64, 128), 0), ((64, 0, 128), 300)))
    assert mask.read().tolist() == [[0, 300]]


@pytest.mark.parametrize("ending", ["_masks", "_labels", "annot"])
def test_masks_may_lie_beside_the_folder_of_images(data, write_image, write_mask, ending):
    for split, count in (("train", 3), ("val", 2)):
        for i in range(count):
            write_image(f"{split}/{i}.jpg")
            write_mask(f"{split}{ending}/{i}_mask.gif", (0, 1, 1))
    write_image("test/1.jpg")
    table = read_table(data)
    assert (table.task, table.classes) == ("segment", ("background", "foreground"))
    assert {split: len(table.of(split)) for split in ("train", "val", "test")} == {
        "train": 3,
        "val": 2,
        "test": 0,
    }
    assert [(p.kind, p.path.name) for p in table.warnings] == [("folder not read", "test")]
    assert table.items[0].mask.read()[0].tolist() == [0, 1, 1] * 4
    assert not check_table(table).problems


def test_masks_beside_the_images_follow_names_and_archives(data, write_image, write_mask):
    for i in range(3):
        write_image(f"train/train/{i}.png")
        write_mask(f"train_masks/train_masks/{i}_L.png", (0, 255))
    write_image("train/train/alone.png")
    (data / "classes.txt").write_text("street\ncar\n")
    table = read_table(data)
    assert table.classes == ("street", "car")
    assert table.split_rule.startswith("given, but val: 20 %")
    assert [item.image.name for item in table.items if item.mask is None] == ["alone.png"]
    assert all(item.mask.read().max() == 1 for item in table.items if item.mask)


def test_masks_beside_val_alone_are_refused(data, write_image, write_mask):
    write_image("val/1.png")
    write_mask("val_masks/1.png")
    with pytest.raises(DataError, match="no train folder"):
        read_table(data)
