"""Every layout is read as what it is, and what is no dataset is refused with a way out."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from surgery.artifact.errors import ConfigError, DataError
from surgery.data.check import check_table, raise_for
from surgery.data.readers import read_table


def splits(table):
    return {split: len(table.of(split)) for split in ("train", "val", "test")}


def test_given_splits_of_class_folders_are_kept(data, write_image):
    for split, name in (("train", "a"), ("train", "b"), ("valid", "a"), ("valid", "b"), ("test", "a")):
        write_image(f"{split}/{name}/1.jpg")
    table = read_table(data)
    assert (table.task, table.classes, table.split_rule) == ("classify", ("a", "b"), "given")
    assert splits(table) == {"train": 2, "val": 2, "test": 1}
    assert [item.label for item in table.of("train")] == [0, 1]


def test_a_drawn_split_is_stratified_and_repeats(data, write_image):
    for name, count in (("rare", 5), ("common", 20)):
        for i in range(count):
            write_image(f"{name}/{i}.png")
    for seed in range(8):
        val = [item.label for item in read_table(data, seed=seed).of("val")]
        assert (val.count(1), val.count(0)) == (1, 4)
    table = read_table(data, seed=3)
    assert table.split_rule == "80/20 stratified, seed 3"
    assert read_table(data, seed=3) == table
    assert read_table(data, seed=4).of("val") != table.of("val")


def test_val_is_drawn_from_train_and_never_from_test(data, write_image):
    for split in ("train", "test"):
        for i in range(10):
            write_image(f"{split}/{'ab'[i % 2]}/{i}.png")
    table = read_table(data)
    assert splits(table) == {"train": 8, "val": 2, "test": 10}
    assert all("train" in item.image.parts for item in table.of("val"))
    assert "val: 20 % of train" in table.split_rule


def test_copies_of_a_file_stay_on_one_side(data, write_image):
    for i in range(12):
        first = write_image(f"{'ab'[i % 2]}/{i}.png")
        shutil.copy(first, first.with_name(f"{i}-copy.png"))
    for seed in range(5):
        table = read_table(data, seed=seed)
        val = {item.image.stem.removesuffix("-copy") for item in table.of("val")}
        train = {item.image.stem.removesuffix("-copy") for item in table.of("train")}
        assert val
        assert not val & train


def test_a_single_image_of_a_class_is_trained_on(data, write_image):
    for name in ("a/1.png", "a/2.png", "a/3.png", "b/1.png"):
        write_image(name)
    table = read_table(data)
    assert [item.split for item in table.items if item.label == 1] == ["train"]
    assert len(table.of("val")) == 1


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1])
def test_an_impossible_share_is_refused(data, write_image, share):
    for name in ("a/1.png", "a/2.png", "b/1.png", "b/2.png"):
        write_image(name)
    with pytest.raises(ConfigError, match="not between"):
        read_table(data, val_share=share)


def test_names_of_files_and_folders_may_be_anything(data, write_image):
    write_image("été à midi/1.JPG")
    write_image("e\u0301te\u0301 a\u0300 midi/2.jpeg")  # the same name, decomposed
    write_image("black cat/.hidden.png")
    write_image("black cat/IMG 1.Png").rename(data / "black cat" / "no_ending")
    write_image("black cat/deep/er/1.webp")
    (data / "black cat" / "Thumbs.db").write_bytes(b"x")
    (data / "black cat" / "notes.txt").write_text("no image")
    write_image(".git/1.png")
    (data / "README.md").write_text("about")
    table = read_table(data)
    assert table.classes == ("black cat", "été à midi")
    assert sorted(item.image.name for item in table.items) == ["1.JPG", "1.webp", "2.jpeg", "no_ending"]
    assert {(p.kind, p.path.name) for p in table.warnings} == {
        ("not an image", "notes.txt"),
        ("nested folder", "deep"),
    }


def test_a_link_to_a_parent_ends(data, write_image):
    write_image("a/1.png")
    write_image("b/1.png")
    write_image("b/2.png")
    write_image("a/2.png")
    (data / "a" / "up").symlink_to(data, target_is_directory=True)
    assert len(read_table(data).items) >= 4


@pytest.mark.parametrize("drawn", [True, False])
def test_a_link_to_an_image_that_is_gone_is_reported(data, write_image, drawn):
    for split in ("",) if drawn else ("train/", "val/"):
        for name in ("a", "b"):
            for i in range(3):
                write_image(f"{split}{name}/{i}.png")
    folder = data / ("a" if drawn else "val/a")
    for name in ("gone.png", "lost.jpg", "no-image.txt"):
        (folder / name).symlink_to(data / "nowhere")
    table = read_table(data)
    said = check_table(table).text()
    assert "gone.png" in said
    assert "lost.jpg" in said
    assert "no-image" not in said
    recorded = {"0" * 64: "val"}
    assert len(read_table(data, recorded=recorded).items) == len(table.items)
    assert len(raise_for(check_table(table), skip_bad=True).items) == len(table.items) - 2


@pytest.mark.parametrize("name", ["test", "Testing"])
def test_test_images_without_labels_beside_class_folders_are_left_out(data, write_image, name):
    for folder in ("ant", "bee", name):
        for i in range(3):
            write_image(f"{folder}/{i}.png")
    table = read_table(data)
    assert table.classes == ("ant", "bee")
    assert [(p.kind, p.path.name) for p in table.warnings] == [("folder not read", name)]
    shutil.rmtree(data / "ant")
    assert len(read_table(data).classes) == 2  # with one class beside it, it is the other


def test_a_class_may_be_called_train(data, write_image):
    for name in ("train", "bus"):
        for i in range(3):
            write_image(f"{name}/{i}.png")
    assert read_table(data).classes == ("bus", "train")


def test_pairs_are_matched_by_name_whatever_the_ending(data, write_image, write_mask):
    for image, mask in (
        ("a.jpg", "a.png"),
        ("b.PNG", "b_mask.png"),
        ("c.jpg", "c-mask.gif"),
        ("d.x.jpg", "d.x.png"),
    ):
        write_image(f"train/images/{image}")
        write_mask(f"train/masks/{mask}")
    write_image("train/images/alone.jpg")
    write_mask("train/masks/orphan.png")
    write_image("val/images/v.jpg")
    write_mask("val/masks/v.png")
    (data / "classes.txt").write_text("\ufeffroad\r\ncar\r\n\r\n", "utf-8")
    table = read_table(data)
    assert (table.task, table.classes) == ("segment", ("road", "car"))
    found = {item.image.name: item.mask and item.mask.path.name for item in table.of("train")}
    assert found == {
        "a.jpg": "a.png", "b.PNG": "b_mask.png", "c.jpg": "c-mask.gif", "d.x.jpg": "d.x.png", "alone.jpg": None,
    }  # fmt: skip
    assert [p.path.name for p in table.warnings if p.kind == "mask without image"] == ["orphan.png"]


def test_an_image_whose_own_name_ends_in_mask_keeps_its_mask(data, write_image, write_mask):
    for stem in ("gas_mask", "gas"):
        write_image(f"images/{stem}.jpg")
        write_mask(f"masks/{stem}.png")
    (data / "classes.txt").write_text("a\nb\n")
    table = read_table(data)
    assert {item.image.stem: item.mask.path.stem for item in table.items} == {
        "gas_mask": "gas_mask",
        "gas": "gas",
    }
    assert not table.problems


def test_two_masks_or_two_images_of_one_name_are_problems(data, write_image, write_mask):
    for name in ("a.jpg", "a.png", "b.jpg", "c.jpg"):
        write_image(f"images/{name}")
    for name in ("a.png", "b.png", "b_mask.png", "c.png"):
        write_mask(f"masks/{name}")
    (data / "classes.txt").write_text("a\nb\n")
    table = read_table(data)
    assert {p.path.name for p in table.problems} == {"a.png", "b_mask.png"}


def test_classes_may_be_named_beside_the_masks_folder(data, write_image, write_mask):
    for split in ("train", "val"):
        write_image(f"{split}/images/1.jpg")
        write_mask(f"{split}/masks/1.png")
        (data / split / "classes.txt").write_text("a\nb\n")
    assert read_table(data).classes == ("a", "b")
    (data / "val" / "classes.txt").write_text("b\na\n")
    with pytest.raises(DataError, match="other classes"):
        read_table(data)


@pytest.mark.parametrize(
    ("text", "message"),
    [("a\n\nb\n", "line 2: empty"), ("a\nb\na\n", "line 3: 'a' is named on line 1"), ("\n", "empty")],
)
def test_a_wrong_list_of_classes_names_the_line(pairs, text, message):
    (pairs / "classes.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        read_table(pairs)


def test_masks_without_names_say_what_to_write(pairs):
    (pairs / "classes.txt").unlink()
    with pytest.raises(DataError, match=r"no classes\.txt") as caught:
        read_table(pairs)
    assert str(pairs / "classes.txt") in caught.value.hint


def test_a_task_that_the_layout_contradicts_is_refused(pairs):
    with pytest.raises(DataError, match="laid out for segment"):
        read_table(pairs, task="classify")
    assert read_table(pairs, task="segment").task == "segment"


def test_a_folder_that_is_not_there_names_the_nearest(tmp_path):
    (tmp_path / "hymenoptera").mkdir()
    with pytest.raises(DataError, match="no such folder") as caught:
        read_table(tmp_path / "hymenopter" / "train")
    assert "hymenoptera/" in caught.value.hint


def test_what_is_no_dataset_says_what_was_found(data, write_image):
    write_image("1.jpg")
    with pytest.raises(DataError, match=r"1 files \(\.jpg\)") as caught:
        read_table(data)
    assert "DATA/train/<class>" in caught.value.hint
    with pytest.raises(DataError, match="is a file"):
        read_table(data / "1.jpg")
    (data / "empty").mkdir()
    with pytest.raises(DataError, match="empty/"):
        read_table(data)


def test_a_folder_of_datasets_names_one(data, write_image):
    for name in ("mnist", "mnist_m"):
        for split in ("train", "test"):
            for label in "01":
                write_image(f"{name}/{split}/{label}/1.png")
    with pytest.raises(DataError, match="whole datasets") as caught:
        read_table(data)
    assert str(data / "mnist") in caught.value.hint


def test_one_class_alone_is_refused(data, write_image):
    write_image("train/cats/1.png")
    write_image("val/cats/1.png")
    with pytest.raises(DataError, match="one class folder only"):
        read_table(data)


def test_images_without_masks_are_no_classes(data, write_image):
    write_image("train/images/1.png")
    write_image("train/labels/1.png")
    with pytest.raises(DataError, match=r"no masks/"):
        read_table(data)


def test_val_without_train_is_refused(data, write_image):
    for split in ("val", "test"):
        write_image(f"{split}/a/1.png")
        write_image(f"{split}/b/1.png")
    with pytest.raises(DataError, match="no train folder"):
        read_table(data)


def test_the_fingerprint_follows_content_and_not_the_place(pairs, tmp_path):
    first = read_table(pairs).fingerprint()
    moved = Path(shutil.move(pairs, tmp_path / "moved"))
    assert read_table(moved).fingerprint() == first
    mask = moved / "train" / "masks" / "0.png"
    shutil.copy(moved / "classes.txt", tmp_path)
    data = bytearray(mask.read_bytes())
    mask.write_bytes(bytes(data) + b"\0")
    assert read_table(moved).fingerprint() != first
