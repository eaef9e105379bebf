"""What is there of each class is counted exactly, and too little of one is told in one line."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from surgery.data.check import check_table
from surgery.data.readers import read_table
from surgery.data.targets import resolve_target


def said(report, kind):
    return [problem.message for problem in (*report.problems, *report.warnings) if problem.kind == kind]


@pytest.fixture
def labelled(data):
    """Return a function that writes so many training images of each class, and one for val."""

    def write(**counts):
        shade = iter(range(1 << 20))
        for name, count in counts.items():
            for i in range(count + 1):
                path = data / ("val" if i == count else "train") / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                value = next(shade)
                Image.new("RGB", (2, 2), (value % 256, value // 256, 0)).save(path)
        return read_table(data)

    return write


@pytest.fixture
def masked(data, write_image):
    """Return a function that writes masks, 10 × 100 pixels of the values and their numbers, and names."""

    def write(names, masks):
        for split in ("train", "val"):
            for i, values in enumerate(masks):
                write_image(f"{split}/images/{i}.png", (10, 100))
                flat = np.repeat(list(values), list(values.values())).astype(np.uint8)
                path = data / split / "masks" / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(flat.reshape(100, 10)).save(path)
        (data / "classes.txt").write_text("\n".join(names))
        return read_table(data)

    return write


def test_balanced_classes_of_enough_images_are_fine(labelled):
    report = check_table(labelled(ant=10, bee=12))
    assert (report.problems, report.warnings, report.rare) == ([], [], {})


def test_classes_of_few_images_are_told_in_one_line(labelled):
    report = check_table(labelled(ant=9, bee=10, cat=1))
    assert report.rare == {0: "9 images", 2: "1 image"}
    assert said(report, "rare class") == [
        "train holds fewer than 10 images of 'ant' (9 images), 'cat' (1 image)"
    ]
    assert [line for line in report.notes() if "rare" in line] == [
        "  rare class: train holds fewer than 10 images of 'ant' (9 images), 'cat' (1 image)"
    ]


def test_of_many_rare_classes_the_first_are_named(labelled):
    report = check_table(labelled(**{f"c{i:02}": 1 for i in range(11)}))
    assert len(report.rare) == 11
    assert said(report, "rare class")[0].endswith("'c07' (1 image) and 3 more")


@pytest.mark.parametrize(("most", "told"), [(100, False), (101, True)])
def test_labels_are_unequal_beyond_ten_to_one(labelled, most, told):
    found = said(check_table(labelled(ant=most, bee=10)), "imbalance")
    assert bool(found) is told
    if told:
        assert "'ant' has 10 times the images of 'bee' in train" in found[0]
        assert "--sampler balanced or --class-weights balanced" in found[0]


@pytest.mark.parametrize(("small", "told"), [(99, True), (100, False)])
def test_masks_are_unequal_beyond_a_hundred_to_one(masked, small, told):
    table = masked(("road", "car", "void"), [{0: 1000}] * 10 + [{1: small, 2: 1000 - small}])
    found = said(check_table(table, resolve_target(table, (), ("void",))), "imbalance")
    assert bool(found) is told


def test_a_class_of_few_pixels_is_rare_however_many_images_hold_it(masked):
    report = check_table(masked(("road", "pole", "car"), [{0: 899, 1: 1, 2: 100}] * 10))
    assert report.rare == {}  # 1 in 1000 is not less than 0.1 %
    assert report.frequencies.images["train"] == [10, 10, 10]
    assert report.frequencies.pixels["train"] == [8990, 10, 1000]
    report = check_table(masked(("road", "pole", "car"), [{0: 899, 1: 1, 2: 100}] * 9 + [{0: 900, 2: 100}]))
    assert report.rare == {1: "9 images"}


def test_what_is_left_out_makes_no_class_larger(masked):
    table = masked(("road", "car", "void"), [{0: 490, 1: 10, 2: 500}] * 10)
    ratio = said(check_table(table), "imbalance")
    assert ratio == []
    chosen = check_table(table, resolve_target(table, ("car",), ("void",)))
    assert chosen.warnings == []
    assert chosen.rare == {}


def test_the_rest_is_one_class(masked):
    table = masked(("road", "sky", "car"), [{0: 498, 1: 497, 2: 5}] * 10)
    assert said(check_table(table), "imbalance") == []  # 498 to 5
    against = check_table(table, resolve_target(table, ("car",), ()))
    assert said(against, "imbalance") == [
        "'rest' has 199 times the pixels of 'car' in train; --class-weights balanced makes up for it"
    ]


def test_values_without_a_name_are_counted(masked):
    table = masked(("road", "car"), [{0: 500, 1: 300, 9: 150, 255: 50}] * 2)
    report = check_table(table, resolve_target(table, (), ("255",)))
    assert report.frequencies.unlisted == {
        9: {"train": 300, "val": 300, "test": 0},
        255: {"train": 100, "val": 100, "test": 0},
    }
    told = report.to_dict()
    assert told["unlisted_values"] == {"9": {"train": 300, "val": 300}, "255": {"train": 100, "val": 100}}
    assert told["holding"]["car"] == {"train": 2, "val": 2}
    assert [p.kind for p in report.problems] == ["unnamed values"] * 4


def test_masks_of_one_class_teach_nothing(masked):
    table = masked(("road", "car", "void"), [{0: 900, 2: 100}] * 10)
    assert said(check_table(table), "single class") == []
    report = check_table(table, resolve_target(table, (), ("void",)))
    assert said(report, "single class") == [
        "every pixel of train that counts is 'road'; two classes or more are needed"
    ]


def test_a_mask_without_a_pixel_that_counts_is_worth_knowing(masked):
    table = masked(("road", "car", "void"), [{0: 500, 1: 500}] * 9 + [{2: 1000}])
    assert said(check_table(table), "nothing labelled") == []
    report = check_table(table, resolve_target(table, (), ("void",)))
    assert [p.path.name for p in report.warnings if p.kind == "nothing labelled"] == ["9.png", "9.png"]
    assert report.problems == []
