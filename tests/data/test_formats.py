"""Each format is found without a flag and by its flag, and none is taken for another."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from surgery.artifact.errors import DataError
from surgery.config import FORMATS as NAMES
from surgery.data.check import check_table
from surgery.data.formats import FORMATS
from surgery.data.readers import read_table

SPLITS = ("train", "val")
SEEDS = itertools.count()


def image(path: Path) -> str:
    """Write an image that differs from all others; return its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(next(SEEDS)).integers(0, 256, (8, 12, 3), np.uint8)
    Image.fromarray(pixels).save(path, quality=95)
    return path.name


def mask(path: Path, high: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.tile(np.asarray([0, high], np.uint8), (8, 6))).save(path)


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def folders(root: Path) -> None:
    for split in SPLITS:
        for i in range(4):
            image(root / split / "ab"[i % 2] / f"{i}.jpg")


def plain_folders(root: Path) -> None:
    for i in range(6):
        image(root / "ab"[i % 2] / f"{i}.jpg")


def csv_of_paths(root: Path) -> None:
    rows = [
        f"pictures/{image(root / 'pictures' / f'{i}.jpg')},{'ab'[i % 2]},{SPLITS[i // 4]}" for i in range(8)
    ]
    text(root / "labels.csv", "\n".join(["path,label,split", *rows]))


def csv_of_ids(root: Path) -> None:
    for split in (*SPLITS, "test"):
        names = [Path(image(root / f"{split}_images" / f"{split}{i}.jpg")).stem for i in range(4)]
        label = "" if split == "test" else ",ab"
        rows = [name + label[: 2 if i % 2 else None].replace("ab", "b") for i, name in enumerate(names)]
        text(root / f"{split}.csv", "\n".join(["image_id" + (",label" if label else ""), *rows]))


def csv_of_tags(root: Path) -> None:
    cells = ["a", "b", "a;b", "", "a", "b", "a;b", "b"]
    rows = [f"{image(root / f'{i}.jpg')}\t{cell}\t{SPLITS[i // 4]}" for i, cell in enumerate(cells)]
    text(root / "any.csv", "\n".join(["file\ttags\tset", *rows]))


def pairs(root: Path) -> None:
    for split in SPLITS:
        for i in range(3):
            image(root / split / "images" / f"{i}.jpg")
            mask(root / split / "masks" / f"{i}.png")
    text(root / "classes.txt", "road\ncar\n")


def pairs_in_colours(root: Path) -> None:
    for i in range(6):
        image(root / "images" / f"{i}.jpg")
        (root / "masks").mkdir(exist_ok=True)
        Image.new("RGB", (12, 8), ((9, 9, 9), (0, 0, 200))[i % 2]).save(root / "masks" / f"{i}.png")
    text(root / "class_dict.csv", "name,r,g,b\nroad,9,9,9\ncar,0,0,200\n")


def carvana(root: Path) -> None:
    for split in SPLITS:
        for i in range(3):
            image(root / split / f"{i}.jpg")
            mask(root / f"{split}_masks" / f"{i}_mask.gif")
    image(root / "test" / "9.jpg")
    text(root / "train_masks.csv", "img,rle_mask\n1.jpg,1 2 3\n")


def coco_json(names: list[str]) -> str:
    entries = [{"id": i, "file_name": name, "width": 12, "height": 8} for i, name in enumerate(names)]
    shapes = [{"image_id": 0, "category_id": 1, "segmentation": [[0, 0, 6, 0, 6, 8, 0, 8]]}]
    return json.dumps({"images": entries, "annotations": shapes, "categories": [{"id": 1, "name": "car"}]})


def coco(root: Path) -> None:
    for split in SPLITS:
        names = [image(root / f"{split}2017" / f"{i}.jpg") for i in range(3)]
        text(root / "annotations" / f"instances_{split}2017.json", coco_json(names))


def coco_of_roboflow(root: Path) -> None:
    for split in ("train", "valid"):
        names = [image(root / split / f"{i}.jpg") for i in range(3)]
        text(root / split / "_annotations.coco.json", coco_json(names))


def coco_alone(root: Path) -> None:
    text(root / "labels.json", coco_json([image(root / "images" / f"{i}.jpg") for i in range(5)]))


def voc(root: Path) -> None:
    for i in range(6):
        image(root / "JPEGImages" / f"{i}.jpg")
        mask(root / "SegmentationClass" / f"{i}.png", 15)
    text(root / "ImageSets/Segmentation/train.txt", "0\n1\n2\n")
    text(root / "ImageSets/Segmentation/val.txt", "3\n4\n5\n")


def voc_kit(root: Path) -> None:
    voc(root / "VOCdevkit" / "VOC2012")


def yolo(root: Path) -> None:
    for split in SPLITS:
        for i in range(3):
            image(root / "images" / split / f"{i}.jpg")
            text(root / "labels" / split / f"{i}.txt", "0 0 0 0.5 0 0.5 1 0 1\n")
    text(root / "data.yaml", "path: .\ntrain: images/train\nval: images/val\nnames: [car]\n")


def yolo_of_roboflow(root: Path) -> None:
    for split in ("train", "valid"):
        for i in range(3):
            image(root / split / "images" / f"{i}.jpg")
            text(root / split / "labels" / f"{i}.txt", "0 0 0 0.5 0 0.5 1 0 1\n")
    text(root / "data.yaml", "train: ../train/images\nval: ../valid/images\nnames: [car]\nnc: 1\n")


LAYOUTS: dict[Callable[[Path], None], str] = {
    folders: "folders", plain_folders: "folders", csv_of_paths: "csv", csv_of_ids: "csv", csv_of_tags: "csv",
    pairs: "pairs", pairs_in_colours: "pairs", carvana: "carvana", coco: "coco", coco_of_roboflow: "coco",
    coco_alone: "coco", voc: "voc", voc_kit: "voc", yolo: "yolo", yolo_of_roboflow: "yolo",
}  # fmt: skip


def layouts():
    return pytest.mark.parametrize(
        ("write", "name"), LAYOUTS.items(), ids=lambda value: getattr(value, "__name__", "")
    )


@layouts()
def test_a_layout_is_found_without_a_flag_and_by_its_flag(tmp_path, write, name):
    write(tmp_path / "data")
    table = read_table(tmp_path / "data")
    assert table == read_table(tmp_path / "data", format=name)
    assert table.task == {each.name: each.task for each in FORMATS}[name]
    assert {item.split for item in table.items} == set(SPLITS)
    assert not check_table(table).problems


@layouts()
def test_a_layout_fits_its_own_format_only(tmp_path, write, name):
    write(tmp_path / "data")
    fitting = {each.name for each in FORMATS if each.fits(tmp_path / "data")}
    assert fitting == {name, "folders"}


@layouts()
def test_a_wrong_flag_ends_with_a_message(tmp_path, write, name):
    write(tmp_path / "data")
    for wrong in {each.name for each in FORMATS} - {name, "folders"}:
        with pytest.raises(DataError) as caught:
            read_table(tmp_path / "data", format=wrong)
        assert caught.value.hint


@pytest.mark.parametrize(
    ("first", "second", "name"),
    [
        (pairs, csv_of_paths, "pairs"),
        (carvana, csv_of_ids, "carvana"),
        (coco, csv_of_paths, "coco"),
        (voc, csv_of_tags, "voc"),
        (yolo, pairs, "yolo"),
        (yolo, coco, "yolo"),
        (folders, csv_of_paths, "csv"),
    ],
)
def test_the_specific_goes_before_the_general(tmp_path, first, second, name):
    for write in (first, second):
        write(tmp_path)
    assert next(each.name for each in FORMATS if each.fits(tmp_path)) == name


def test_what_is_written_for_people_and_machines_beside_the_images_changes_nothing(tmp_path):
    folders(tmp_path)
    text(tmp_path / "classes.csv", "id,name\n0,a\n1,b\n")
    text(tmp_path / "notes.csv", "date,text\n1,x\n")
    text(tmp_path / "meta.json", '{"version": 3}')
    text(tmp_path / "mkdocs.yml", "site_name: !!python/name:os.system x\n")
    text(tmp_path / "recipe.yaml", "names: [a, b]\n")
    text(tmp_path / "broken.csv", "\xff\xfe\x00")
    assert next(each.name for each in FORMATS if each.fits(tmp_path)) == "folders"
    assert read_table(tmp_path).classes == ("a", "b")


def test_every_format_has_a_name_that_a_config_takes_and_a_line_for_people():
    from surgery.data.formats.draft import LAYOUTS as told

    assert sorted(each.name for each in FORMATS) == sorted(NAMES)
    assert sorted(line.split()[0] for line in told.splitlines()[1:]) == sorted(NAMES)
    assert FORMATS[-1].name == "folders"


@pytest.mark.parametrize("each", FORMATS, ids=lambda each: each.name)
def test_nothing_fits_what_is_not_there(tmp_path, each):
    assert not each.fits(tmp_path / "gone")
    text(tmp_path / "a.txt", "x")
    assert not each.fits(tmp_path / "a.txt")
