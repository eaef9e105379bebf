"""YOLO's outlines as Ultralytics and Roboflow lay them out."""

from __future__ import annotations

import numpy as np
import pytest
import yaml

from surgery.artifact.errors import DataError
from surgery.data.check import check_table, raise_for
from surgery.data.readers import read_table

LEFT = "0 0 0 0.5 0 0.5 1 0 1"
"""A cat on the left half."""
CORNER = "1 0.25 0 0.5 0 0.5 0.5 0.25 0.5"
"""A dog in front of it."""


def mask(text):
    """Return the mask of LEFT and CORNER on 12×8 pixels: both are drawn at whole pixels."""
    truth = np.zeros((8, 12), np.uint8)
    if LEFT in text:
        truth[:, :6] = 1
    if CORNER in text:
        truth[:4, 3:6] = 2
    return truth


@pytest.fixture
def put(data, write_image):
    """Write images and label files: both animals, one, an empty file, and no file."""

    def write(images, labels, count=4):
        texts = [f"{CORNER}\n{LEFT}\n", f"{LEFT}\n\n", "", None]
        for i in range(count):
            write_image(f"{images}/{i}.jpg")
            if texts[i % 4] is not None:
                write_text(data, f"{labels}/{i}.txt", texts[i % 4])
        return texts

    return write


def write_text(data, name, text):
    path = data / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def write_yaml(data, name="data.yaml", names=("cat", "dog"), **values):
    content = {"names": list(names) if isinstance(names, tuple) else names, **values}
    return write_text(data, name, yaml.safe_dump(content))


def splits(table):
    return {split: len(table.of(split)) for split in ("train", "val", "test") if table.of(split)}


def assert_masks(table):
    texts = [LEFT + CORNER, LEFT, "", ""]
    for item in table.items:
        np.testing.assert_array_equal(item.mask.read(), mask(texts[int(item.image.stem) % 4]))
    assert not check_table(table).problems


ULTRALYTICS = {"train": ("images/train", "labels/train"), "val": ("images/val", "labels/val")}
ROBOFLOW = {"train": ("train/images", "train/labels"), "val": ("valid/images", "valid/labels")}
LAYOUTS = {
    "ultralytics": (ULTRALYTICS, {"path": ".", "train": "images/train", "val": "images/val"}),
    "path of another machine": (ULTRALYTICS, {"path": "/home/else/data", "train": "images/train", "val": ["images/val"]}),
    "roboflow": (ROBOFLOW, {"train": "../train/images", "val": "../valid/images", "test": "../test/images", "nc": 2}),
    "roboflow, below path": (ROBOFLOW, {"train": "train/images", "valid": "valid/images", "test": None}),
    "whole folders": (ROBOFLOW, {"train": "train", "val": "valid"}),
    "labels beside": ({"train": ("train", "train"), "val": ("val", "val")}, {"train": "train", "val": "val"}),
}  # fmt: skip


@pytest.mark.parametrize("name", ["data.yaml", "pets.yml"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_read(data, put, layout, name):
    folders, values = LAYOUTS[layout]
    for images, labels in folders.values():
        put(images, labels)
    write_yaml(data, name, **values)
    write_text(data, "hyp.yaml", "lr: 0.1\n")
    table = read_table(data)
    assert (table.task, table.classes) == ("segment", ("background", "cat", "dog"))
    assert (splits(table), table.split_rule) == ({"train": 4, "val": 4}, "given")
    assert_masks(table)
    assert [p.kind for p in table.warnings] == (["no test"] if values.get("test") else [])
    assert read_table(data / name) == table


@pytest.mark.parametrize("start", ["./", "", "lists/../"])
def test_lists_of_images_are_followed(data, put, start):
    put("images/all", "labels/all", 8)
    write_text(
        data,
        "train.txt",
        "".join(f"{start}images/all/{i}.jpg\n" for i in range(6) if i != 3).replace("lists/..", "."),
    )
    write_text(data, "lists/val.txt", "../images/all/6.jpg\n\n../images/all/7.jpg\nimages/all/99.jpg\n")
    write_yaml(data, train="train.txt", val="lists/val.txt")
    table = read_table(data)
    assert {split: [item.image.stem for item in table.of(split)] for split in ("train", "val")} == {
        "train": ["0", "1", "2", "4", "5"], "val": ["6", "7"],
    }  # fmt: skip
    assert [(p.kind, p.path.name, p.message) for p in table.problems] == [
        ("image missing", "val.txt", "line 4: there is no 'images/all/99.jpg'")
    ]
    assert [p.kind for p in table.warnings] == []


def test_several_folders_make_a_split_and_val_is_drawn(data, put):
    for part in "ab":
        put(f"images/{part}", f"labels/{part}")
    write_yaml(data, train=["images/a", "images/b"])
    table = read_table(data)
    assert sum(splits(table).values()) == 8
    assert table.of("val")
    assert table.split_rule.startswith("given, but val: 20 %")
    assert_masks(table)


def test_a_data_set_in_a_folder_called_images_finds_its_labels(tmp_path, data, put):
    put("train", "train")
    write_yaml(data, train="train")
    (tmp_path / "images").mkdir()
    data.rename(tmp_path / "images/data")
    assert_masks(read_table(tmp_path / "images/data"))


def test_names_may_have_numbers_and_background_steps_aside(data, put):
    put("images/train", "labels/train")
    write_yaml(data, names={1: "background", 0: 7}, train="images/train")
    assert read_table(data).classes == ("background (unnamed)", "7", "background")


def test_a_test_split_without_labels_is_left_out(data, put, write_image):
    for split in ("train", "val"):
        put(f"{split}/images", f"{split}/labels")
    write_image("test/images/1.jpg")
    write_yaml(data, train="train/images", val="val/images", test="test/images")
    table = read_table(data)
    assert splits(table) == {"train": 4, "val": 4}
    assert [p.message for p in table.warnings] == ["1 images of test; left out"]


def test_labels_without_an_image_are_counted(data, put):
    put("images/train", "labels/train")
    for name in ("8", "9", "classes"):
        write_text(data, f"labels/train/{name}.txt", LEFT)
    write_yaml(data, train="images/train")
    assert [(p.kind, p.message) for p in read_table(data).warnings] == [
        ("label without image", "2 label files have no image; left out")
    ]


def test_boxes_are_refused_with_file_and_line(data, put):
    put("images/train", "labels/train")
    label = write_text(data, "labels/train/1.txt", f"{LEFT}\n0 0.5 0.5 0.2 0.2\n")
    write_yaml(data, train="images/train")
    with pytest.raises(DataError, match=rf"{label} line 2: 5 numbers are a box") as caught:
        read_table(data)
    assert "YOLO segmentation" in caught.value.hint


def test_broken_rows_are_problems_with_file_and_line(data, put):
    put("images/train", "labels/train", 12)
    put("images/val", "labels/val")
    rows = {
        0: ("0 0 0 1.2 0 1 1", "line 2: coordinate 1.2 is outside of 0–1"),
        1: ("0 0 0 1 0 1 nan", "line 2: coordinate nan is outside of 0–1"),
        4: ("0 0 0 1 0 1 1 0", "line 2: 7 coordinates after the class, an odd number"),
        5: ("2 0 0 1 0 1 1", "line 2: class 2 is not one of 0–1"),
        6: ("0.5 0 0 1 0 1 1", "line 2: class 0.5 is not one of 0–1"),
        8: ("0 a b c d e f", "line 2: '0 a b c d e f' are not all numbers"),
        9: ("0 0 0\n0 -1 0 1 0 1 1", "line 2: 1 points; an outline has three or more; line 3: coordinate -1 is outside of 0–1"),
    }  # fmt: skip
    for i, (row, _) in rows.items():
        write_text(data, f"labels/train/{i}.txt", f"{LEFT}\n{row}\n")
    write_text(data, "labels/train/2.txt", "0 0 0 1.0004 0 1 1\n")
    write_yaml(data, train="images/train", val="images/val")
    report = check_table(read_table(data))
    assert {p.path.stem: p.message for p in report.problems} == {
        str(i): text for i, (_, text) in rows.items()
    }
    assert {p.kind for p in report.problems} == {"unreadable mask"}
    assert len(raise_for(report, skip_bad=True).items) == 9


def test_the_fingerprint_follows_the_labels(data, put):
    put("images/train", "labels/train")
    write_yaml(data, train="images/train")
    first = read_table(data).fingerprint()
    write_text(data, "labels/train/3.txt", "")  # no file and an empty one are the same
    assert read_table(data).fingerprint() == first
    write_text(data, "labels/train/3.txt", LEFT)
    assert read_table(data).fingerprint() != first
    assert len({item.mask for item in read_table(data).items}) == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [a\n", "is no YAML"),
        ("names: []\ntrain: images", "names no classes"),
        ("names: [a, a]\ntrain: images", "two classes are called 'a'"),
        ("names: {0: a, 2: b}\ntrain: images", "are not 0 to 1"),
        ("names: [a, b]\nnc: 3\ntrain: images", "nc is 3, but names has 2"),
        ("names: [a, b]\ntrain: gone", "train is 'gone', which is not in"),
        ("names: [a, b]\ntrain: 3", "train is neither a path nor"),
        ("names: [a, b]\ntrain:", "says nothing of train"),
        ("names: [a, b]\ntrain: images\nval: images", "train and val are the same"),
        ("names: [a, b]\ntrain: images/bare", "none of the 1 images of train has labels"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused(data, write_image, text, message):
    write_image("images/bare/1.jpg")
    write_text(data, "data.yaml", text)
    with pytest.raises(DataError, match=message):
        read_table(data)


def test_several_files_need_a_choice(data, put):
    put("images/train", "labels/train")
    for name in ("a.yaml", "b.yaml"):
        write_yaml(data, name, train="images/train")
    with pytest.raises(DataError, match=r"several files describe the data: a\.yaml, b\.yaml"):
        read_table(data)
    assert len(read_table(data / "b.yaml").items) == 4
