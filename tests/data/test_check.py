"""One report names every problem; what is fine is not reported."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from surgery.artifact.errors import DataError
from surgery.data.check import check_table, raise_for
from surgery.data.readers import read_table
from surgery.data.targets import resolve_target


def kinds(problems):
    return {(problem.kind, problem.path.name) for problem in problems}


FEW = {("rare class", "data")}
"""What is said of a handful of images, whatever else they are."""


def damage(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_whole_data_has_no_problems(pairs):
    report = check_table(read_table(pairs))
    assert (report.problems, report.bad, report.similar) == ([], frozenset(), [])
    assert kinds(report.warnings) == FEW
    assert raise_for(report) is report.table
    assert report.summary["images"] == {"train": 3, "val": 2}
    assert report.summary["classes"]["car"] == {"train": 3 * 32, "val": 2 * 32}


def test_everything_wrong_is_in_one_report(pairs, write_image, write_mask):
    damage(write_image("train/images/cut.png"))
    write_mask("train/masks/cut.png")
    write_image("train/images/none.png")
    write_image("train/images/large.png")
    write_mask("train/masks/large.png", size=(13, 8))
    write_image("train/images/value.png")
    write_mask("train/masks/value.png", (0, 1, 9, 77))
    write_image("train/images/text.png")
    (pairs / "train/masks/text.png").write_text("no mask")
    write_image("train/images/colour.png")
    noise = np.arange(12 * 8 * 3, dtype=np.uint8).reshape(8, 12, 3)
    Image.fromarray(noise).save(pairs / "train/masks/colour.png")
    shutil.copy(pairs / "val/images/0.png", pairs / "train/images/leak.png")
    write_mask("train/masks/leak.png")
    report = check_table(read_table(pairs))
    assert kinds(report.problems) == {
        ("unreadable image", "cut.png"),
        ("mask missing", "none.png"),
        ("mask of another size", "large.png"),
        ("unnamed values", "value.png"),
        ("unreadable mask", "text.png"),
        ("unreadable mask", "colour.png"),
        ("same image in two splits", "leak.png"),
    }
    with pytest.raises(DataError) as caught:
        raise_for(report)
    text = caught.value.message
    assert "7 problems" in text
    assert "is 13×8, its image large.png is 12×8" in text
    assert "values 9, 77 have no class; 0–2 have" in text
    assert "(train) is the same file as val/images/0.png (val)" in text
    assert "--skip-bad trains without 7" in caught.value.hint


def test_skip_bad_leaves_out_what_is_at_fault_and_keeps_val_whole(pairs, write_image):
    write_image("train/images/none.png")
    shutil.copy(pairs / "val/images/0.png", pairs / "train/images/leak.png")
    shutil.copy(pairs / "val/masks/0.png", pairs / "train/masks/leak.png")
    table = read_table(pairs)
    kept = raise_for(check_table(table), skip_bad=True)
    assert {item.image.name for item in kept.of("train")} == {"0.png", "1.png", "2.png"}
    assert kept.of("val") == table.of("val")


def test_skip_bad_does_not_skip_what_is_left_without_images(data, write_image):
    for split in ("train", "val"):
        for name in "ab":
            write_image(f"{split}/{name}/1.png")
    damage(data / "train/b/1.png")
    with pytest.raises(DataError, match="'b' has no images in train, 1 in val"):
        raise_for(check_table(read_table(data)), skip_bad=True)


def test_a_class_that_is_only_in_val_is_a_problem(data, write_image):
    for name in ("train/crow", "train/cow", "val/crow", "val/cow", "val/crown"):
        write_image(f"{name}/1.png")
    report = check_table(read_table(data))
    assert [p.message for p in report.problems] == ["'crown' has no images in train, 1 in val"]


def test_a_mask_class_that_never_occurs_matters_only_if_it_is_chosen(pairs):
    (pairs / "classes.txt").write_text("road\ncar\nvoid\nbus\n")
    table = read_table(pairs)
    assert kinds(check_table(table).warnings) == {("empty class", "data"), *FEW}
    chosen = check_table(table, resolve_target(table, ("bus",), ()))
    assert kinds(chosen.problems) == {("empty class", "data")}
    assert kinds(check_table(table, resolve_target(table, ("car",), ("bus",))).warnings) == FEW


def test_classes_that_are_not_learnt_need_not_be_whole(data, write_image):
    for split in ("train", "val"):
        for name in "abc":
            write_image(f"{split}/{name}/1.png")
    damage(data / "train/c/1.png")
    table = read_table(data)
    assert check_table(table).problems
    assert not check_table(table, resolve_target(table, ("a", "b"), ())).problems


def test_values_that_are_ignored_by_number_need_no_name(pairs, write_mask):
    write_mask("train/masks/0.png", (0, 1, 255))
    table = read_table(pairs)
    assert kinds(check_table(table).problems) == {("unnamed values", "0.png")}
    assert not check_table(table, resolve_target(table, (), ("255",))).problems


def test_copies_within_a_split_are_worth_knowing(data, write_image):
    for split in ("train", "val"):
        for name in "ab":
            write_image(f"{split}/{name}/1.png")
    shutil.copy(data / "train/a/1.png", data / "train/a/2.png")
    shutil.copy(data / "train/b/1.png", data / "train/a/3.png")
    report = check_table(read_table(data))
    assert not report.problems
    assert {(kind, name) for kind, name in kinds(report.warnings) - FEW} == {
        ("same image twice", "1.png"),
        ("same image in two classes", "3.png"),
    }
    assert {(p.path.parts[-2:], p.other.parts[-2:]) for p in report.warnings if p.other} == {
        (("a", "1.png"), ("a", "2.png")),
        (("a", "3.png"), ("b", "1.png")),
    }


def test_a_turned_image_and_its_unturned_mask_are_noticed(pairs):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 12), (1, 2, 3)).save(pairs / "train/images/0.png", exif=exif)
    exif[0x0112] = 3
    Image.new("RGB", (12, 8), (1, 2, 4)).save(pairs / "train/images/1.png", exif=exif)
    report = check_table(read_table(pairs))
    assert not report.problems
    assert kinds(report.warnings) - FEW == {("turned image", "0.png"), ("turned image", "1.png")}
    Image.new("RGB", (12, 8), (1, 2, 3)).save(pairs / "train/images/0.png", exif=_turned(6))
    report = check_table(read_table(pairs))
    assert "turned as its EXIF tag says" in report.problems[0].message


def _turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def test_progress_counts_every_image(pairs):
    seen = []
    check_table(read_table(pairs), progress=lambda done, total: seen.append((done, total)), workers=3)
    assert seen == [(i, 5) for i in range(1, 6)]


def test_a_flood_of_problems_is_cut_in_text_and_whole_in_data(data, write_image):
    for name in "ab":
        for i in range(60):
            write_image(f"{name}/{i}.png")
    table = read_table(data)
    for item in table.items:
        item.image.write_bytes(b"not an image")
    report = check_table(table)
    assert "and 100 more" in report.text()
    assert sum(p["kind"] == "unreadable image" for p in report.to_dict()["problems"]) == 120


def test_images_that_look_the_same_in_two_splits_are_worth_knowing(pairs):
    picture = Image.effect_mandelbrot((12, 8), (-2, -1.2, 1, 1.2), 100).convert("RGB")
    picture.save(pairs / "train" / "images" / "0.png")
    picture.point(lambda level: min(255, level + 5)).save(pairs / "val" / "images" / "1.png")
    found = check_table(read_table(pairs))
    alike = [problem for problem in found.warnings if problem.kind == "similar images in two splits"]
    assert [problem.path.name for problem in alike] == ["0.png"]
    assert "val/images/1.png" in alike[0].message
    assert alike[0].other == pairs / "val" / "images" / "1.png"
    assert found.similar == []


def test_images_that_look_the_same_in_one_split_are_told_apart_from_warnings(pairs):
    picture = Image.effect_mandelbrot((12, 8), (-2, -1.2, 1, 1.2), 100).convert("RGB")
    for name, brighter in (("0.png", 0), ("1.png", 5)):
        picture.point(lambda level, more=brighter: min(255, level + more)).save(pairs / "train/images" / name)
    report = check_table(read_table(pairs))
    assert kinds(report.warnings) == FEW
    assert [(p.path.name, p.other.name) for p in report.similar] == [("1.png", "0.png")]
    assert [(p["path"], p["other"]) for p in report.to_dict()["similar"]] == [
        ("train/images/1.png", "train/images/0.png")
    ]
