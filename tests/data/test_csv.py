"""Lists of images and labels as people write and download them."""

from __future__ import annotations

import unicodedata

import pytest

from surgery.artifact.errors import DataError
from surgery.data.check import check_table, raise_for
from surgery.data.readers import read_table


def write(data, name, *lines, encoding="utf-8"):
    data.mkdir(parents=True, exist_ok=True)
    path = data / name
    path.write_text("\n".join(lines) + "\n", encoding)
    return path


def labels(table):
    """Return the names of each image's labels by the image's name."""
    return {
        item.image.name: table.classes[item.label]
        if item.labels is None
        else [table.classes[i] for i in item.labels]
        for item in table.items
    }


def splits(table):
    return {split: sorted(item.image.name for item in table.of(split)) for split in ("train", "val", "test")}


def kinds(problems):
    return [(problem.kind, problem.path.name, problem.message) for problem in problems]


@pytest.fixture
def animals(data, write_image):
    """Four cats and four dogs, each with a name of its own."""
    for i in range(8):
        write_image(f"{'cat' if i < 4 else 'dog'}{i}.jpg")
    return data


def rows(between=","):
    return [f"{'cat' if i < 4 else 'dog'}{i}.jpg{between}{'cat' if i < 4 else 'dog'}" for i in range(8)]


@pytest.mark.parametrize("between", [",", "\t", ";"], ids=["comma", "tab", "semicolon"])
@pytest.mark.parametrize(
    "header", [("path", "label"), ("Image_Path", "Class"), ("id", "breed"), ("filename", "target")]
)
def test_columns_are_found_by_their_names(animals, between, header):
    write(animals, "labels.csv", between.join(header), *rows(between), encoding="utf-8-sig")
    table = read_table(animals)
    assert (table.task, table.classes, table.multilabel) == ("classify", ("cat", "dog"), False)
    assert labels(table) == {
        f"{name}{i}.jpg": name for name, i in zip(["cat"] * 4 + ["dog"] * 4, range(8), strict=True)
    }
    assert table.split_rule.startswith("80/20")
    assert not check_table(table).problems
    assert table.root == animals


def test_the_file_itself_may_be_named(animals):
    path = write(animals, "any.csv", ",path,label,note", *(f"{i},{row},x" for i, row in enumerate(rows())))
    write(animals, "other.csv", "path,label", *rows())
    table = read_table(path)
    assert (len(table.items), table.root, table.layout) == (8, animals, "any.csv: path,label")
    with pytest.raises(DataError, match=r"several files list images: any\.csv, other\.csv"):
        read_table(animals)


def test_a_column_of_splits_is_followed(animals):
    words = ["train", "Training", "valid", "test"] * 2
    write(
        animals,
        "labels.csv",
        "image,label,subset",
        *(f"{row},{word}" for row, word in zip(rows(), words, strict=True)),
    )
    table = read_table(animals)
    assert splits(table) == {
        "train": ["cat0.jpg", "cat1.jpg", "dog4.jpg", "dog5.jpg"], "val": ["cat2.jpg", "dog6.jpg"],
        "test": ["cat3.jpg", "dog7.jpg"],
    }  # fmt: skip
    assert table.split_rule == "given"


def test_folds_by_number_are_no_splits(animals):
    write(animals, "labels.csv", "image,label,fold", *(f"{row},{i % 4}" for i, row in enumerate(rows())))
    table = read_table(animals)
    assert table.split_rule.startswith("80/20")
    assert [p.kind for p in table.warnings] == ["no splits"]


def test_a_file_for_each_split(animals):
    for name, chosen in (("train", rows()[:3] + rows()[4:6]), ("valid", rows()[3:4] + rows()[6:7])):
        write(animals, f"{name}.csv", "image,label", *chosen)
    write(animals, "test.csv", "image", "dog7.jpg")
    write(animals, "sample_submission.csv", "image,label", "dog7.jpg,cat")
    table = read_table(animals)
    assert splits(table) == {
        "train": ["cat0.jpg", "cat1.jpg", "cat2.jpg", "dog4.jpg", "dog5.jpg"],
        "val": ["cat3.jpg", "dog6.jpg"], "test": [],
    }  # fmt: skip
    assert table.split_rule == "given"
    assert [(p.kind, p.path.name) for p in table.warnings] == [
        ("no labels", "test.csv"),
        ("images not listed", "data"),
    ]
    write(animals, "test.csv", "image,label", "dog7.jpg,dog")
    assert splits(read_table(animals))["test"] == ["dog7.jpg"]


def test_ids_are_found_in_folders_without_their_ending(data, write_image):
    for split in ("train", "test"):
        for i in range(6):
            write_image(f"{split}_images/{i}.{'JPG' if i % 2 else 'png'}")
    write(data, "train.csv", "image_id,label", *(f"{i},{'ab'[i // 3]}" for i in range(6)))
    table = read_table(data)
    assert {item.image.parent.name for item in table.items} == {"train_images"}
    assert labels(table) == {
        "0.png": "a",
        "1.JPG": "a",
        "2.png": "a",
        "3.JPG": "b",
        "4.png": "b",
        "5.JPG": "b",
    }
    assert [p.message for p in table.warnings] == ["6 images stand in no row; left out"]


def test_paths_may_be_written_on_another_system(data, write_image):
    names = ["très loin/été.jpg", "b/c/2.jpg", "b/c/3.jpg", "b/c/4.jpg"]
    for name in names:
        write_image(f"images/{name}")
    decomposed = unicodedata.normalize("NFD", names[0])
    write(
        data,
        "labels.csv",
        "path,label",
        f"{decomposed},x",
        "b\\c\\2.jpg,x",
        "./images/b/c/3.jpg,y",
        f"{data}/images/b/c/4.jpg,y",
    )
    table = read_table(data)
    assert len(table.items) == 4
    assert not table.problems


def test_numbers_are_sorted_as_numbers(data, write_image):
    for i in (0, 1, 2, 10):
        for copy in "ab":
            write_image(f"{i}{copy}.png")
    write(data, "labels.csv", "file,label", *(f"{i}{copy}.png,{i}" for i in (10, 2, 0, 1) for copy in "ab"))
    table = read_table(data)
    assert table.classes == ("0", "1", "2", "10")
    assert labels(table)["10a.png"] == "10"


def test_several_labels_stand_between_semicolons(animals):
    cells = ["cat; tame", "cat", "", "tame;cat;tame", "dog", "dog;tame", "dog;wild", "dog"]
    write(animals, "labels.csv", "path,tags,split", *(
        f"{row.split(',')[0]},{cell},{'val' if i % 2 else 'train'}"
        for i, (row, cell) in enumerate(zip(rows(), cells, strict=True))
    ))  # fmt: skip
    table = read_table(animals)
    assert (table.multilabel, table.classes) == (True, ("cat", "dog", "tame", "wild"))
    assert [item.labels for item in table.items] == [(0, 2), (0,), (), (0, 2), (1,), (1, 2), (1, 3), (1,)]
    assert all(item.label is None for item in table.items)
    assert not table.problems


def test_semicolons_may_part_cells_and_labels(animals):
    write(animals, "labels.csv", "path;labels", *(row.replace(",", ';"') + ';tame"' for row in rows()))
    table = read_table(animals)
    assert (table.multilabel, table.classes) == (True, ("cat", "dog", "tame"))


def test_everything_wrong_is_told_at_once_with_its_line(animals, write_image):
    write_image("deep/twice.jpg")
    write_image("deeper/twice.jpg")
    write(
        animals, "labels.csv", "path,label,split", *(f"{row},{'val' if i % 2 else 'train'}" for i, row in enumerate(rows())),
        "gone.jpg,cat,train", "", "cat1.jpg,dog,val", "cat2.jpg,,train", "cat3.jpg,cat,holiday", "twice.jpg,cat,train",
        ",cat,train", "a,b.jpg,cat,train", "cat0.jpg,cat,val", "dog4.jpg,dog,train",
    )  # fmt: skip
    table = read_table(animals)
    deep, deeper = animals / "deep/twice.jpg", animals / "deeper/twice.jpg"
    assert kinds(table.problems) == [
        ("image missing", "labels.csv", "line 10: there is no 'gone.jpg'"),
        ("label missing", "labels.csv", "line 13: 'cat2.jpg' has no label"),
        ("unknown split", "labels.csv", "line 14: 'holiday' is not one of train, val, test"),
        ("ambiguous image", "labels.csv", f"line 15: 'twice.jpg' may be {deep} or {deeper}"),
        ("image missing", "labels.csv", "line 16: names no image"),
        ("broken row", "labels.csv", "line 17: 4 cells, but the header has 3"),
        ("two labels", "labels.csv", "line 12: 'cat1.jpg' is dog, but cat on line 3"),
        ("same image in two splits", "labels.csv", "line 18: 'cat0.jpg' is in val, but in train on line 2"),
    ]
    assert "image listed twice" in [p.kind for p in table.warnings]
    assert {item.image.name: item.split for item in table.items}["cat0.jpg"] == "val"
    assert "cat1.jpg" not in labels(table)
    report = check_table(table)
    with pytest.raises(DataError) as caught:
        raise_for(report)
    assert "8 problems" in caught.value.message
    assert "--skip-bad trains without 8" in caught.value.hint
    assert len(raise_for(report, skip_bad=True).items) == 7


def test_a_list_of_nothing_that_is_there_names_the_first(data, write_image):
    write_image("pictures/1.jpg")
    write(data, "labels.csv", "path,label", "a.jpg,x", "b.jpg,y")
    with pytest.raises(DataError, match=r"line 2: there is no 'a.jpg', and 1 more problems"):
        read_table(data)


def test_a_table_of_something_else_leaves_class_folders_alone(data, write_image):
    for split in ("train", "val"):
        for name in "ab":
            write_image(f"{split}/{name}/1.png")
    write(data, "classes.csv", "id,label", "0,ants", "1,bees")
    assert read_table(data).classes == ("a", "b")
    write(
        data,
        "labels.csv",
        "path,label",
        *(f"train/{name}/1.png,{name}{name}" for name in "ab"),
        *(f"val/{name}/1.png,{name}{name}" for name in "ab"),
    )
    assert read_table(data, format="folders").classes == ("a", "b")
    assert read_table(data / "labels.csv").classes == ("aa", "bb")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["cat0.jpg,cat", "dog4.jpg,dog"], "line 1: no column of images; the header has 'cat0.jpg', 'cat'"),
        (["path,width,height", "cat0.jpg,1,1"], "line 1: no column of labels"),
        (["path,label", "cat0.jpg,cat", "cat1.jpg,cat"], r"one class only \(cat\)"),
        ([""], "line 1: no column of images"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_list_is_refused(animals, lines, message):
    path = write(animals, "labels.csv", *lines)
    for root in (path, animals):
        with pytest.raises(DataError, match=message):
            read_table(root, format="csv")


def test_text_of_another_encoding_is_refused(animals):
    path = write(animals, "labels.csv", "path,label", *rows(), "x.jpg,kätzchen", encoding="latin-1")
    with pytest.raises(DataError, match="is not UTF-8"):
        read_table(path)


def test_a_file_is_read_by_its_format_only(animals):
    path = write(animals, "labels.csv", "path,label", *rows())
    with pytest.raises(DataError, match="which --format folders does not take"):
        read_table(path, format="folders")
