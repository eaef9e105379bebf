"""COCO's annotations are painted as its own tools paint them, wherever files and images lie."""

from __future__ import annotations

import contextlib
import io
import json

import numpy as np
import pytest
from pycocotools import mask as rle
from pycocotools.coco import COCO

from surgery.artifact.errors import DataError
from surgery.data.check import check_table, raise_for
from surgery.data.outlines import CocoMask, paint
from surgery.data.readers import read_table

CATEGORIES = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat", "supercategory": "animal"}]
"""The mask values are 1 for the cat and 2 for the dog: by id, not by place."""
LEFT = [0, 0, 6, 0, 6, 8, 0, 8]
MIDDLE = [4, 2, 8, 2, 8, 6, 4, 6]


def annotation(image, category, segmentation, **more):
    return {"image_id": image, "category_id": category, "segmentation": segmentation, **more}


def document(names, annotations, categories=CATEGORIES):
    images = [{"id": i, "file_name": name, "width": 12, "height": 8} for i, name in enumerate(names, start=1)]
    numbered = [{"id": i, **each} for i, each in enumerate(annotations, start=1)]
    return {"info": {}, "images": images, "annotations": numbered, "categories": categories}


def save(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def columns(*parts):
    """Return a mask whose columns hold values, each (value, count)."""
    return np.tile(np.concatenate([np.full(count, value, np.uint8) for value, count in parts]), (8, 1))


def splits(table):
    return {split: len(table.of(split)) for split in ("train", "val", "test") if table.of(split)}


@pytest.fixture
def put(data, write_image):
    """Write two images and a JSON file of them: a cat on the left of the first, nothing on the second."""

    def write(json_path, *folder, categories=CATEGORIES, names=("1.jpg", "2.jpg")):
        for name in names:
            write_image("/".join([*folder, name]))
        return save(data / json_path, document(names, [annotation(1, 3, [LEFT])], categories))

    return write


LAYOUTS = {
    "coco": [("annotations/instances_train2017.json", "train2017"), ("annotations/instances_val2017.json", "val2017")],
    "no year": [("annotations/instances_train.json", "train"), ("annotations/instances_val.json", "val")],
    "images/split": [("annotations/instances_train.json", "images", "train"), ("annotations/instances_val.json", "images", "val")],
    "plain": [("annotations/train.json", "images", "train2017"), ("annotations/valid.json", "images", "val2017")],
    "beside": [("train.json", "train"), ("val.json", "val")],
    "roboflow": [("train/_annotations.coco.json", "train"), ("valid/_annotations.coco.json", "valid")],
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_with_splits_is_read(data, put, layout):
    for path, *folder in LAYOUTS[layout]:
        put(path, *folder)
    table = read_table(data)
    assert (table.task, table.classes, table.split_rule) == ("segment", ("background", "cat", "dog"), "given")
    assert splits(table) == {"train": 2, "val": 2}
    for item in table.items:
        truth = columns((1, 6), (0, 6)) if item.image.name == "1.jpg" else columns((0, 12))
        np.testing.assert_array_equal(item.mask.read(), truth)
        assert item.image.parent.name.startswith(item.split)
    assert not check_table(table).problems
    assert not table.warnings


@pytest.mark.parametrize(
    "path",
    ["annotations/instances_default.json", "annotations/some.json", "labels.json", "_annotations.coco.json"],
)
@pytest.mark.parametrize(
    "names", [[f"{i}.jpg" for i in range(5)], [f"deep/{i}.jpg" for i in range(5)]], ids=["flat", "deep"]
)
def test_one_file_without_splits_has_val_drawn(data, put, path, names):
    put(path, *(["images"] if path != "_annotations.coco.json" else []), names=names)
    table = read_table(data)
    assert sum(splits(table).values()) == 5
    assert table.of("val")
    assert table.split_rule.startswith("80/20")


def test_images_of_both_splits_may_share_a_folder(data, put):
    put("annotations/instances_train.json", "images", names=("a.jpg", "b.jpg"))
    put("annotations/instances_val.json", "images", names=("c.jpg", "d.jpg"))
    put("annotations/captions_train.json", "images", names=("c.jpg", "d.jpg"))
    table = read_table(data)
    assert {item.image.name: item.split for item in table.items} == {
        "a.jpg": "train", "b.jpg": "train", "c.jpg": "val", "d.jpg": "val",
    }  # fmt: skip
    assert not table.warnings


def runs(mask, compressed):
    """Return the run lengths of a mask as a JSON file has them."""
    if compressed:
        found = rle.encode(np.asfortranarray(mask))
        return {"size": list(mask.shape), "counts": found["counts"].decode()}
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [1 - flat[-1]]])))
    return {"size": list(mask.shape), "counts": np.diff(np.concatenate([[0], edges])).tolist()}


def test_masks_are_those_of_cocos_own_tools(data, write_image):
    rng = np.random.default_rng(0)
    annotations = []
    for image in (1, 2, 3):
        write_image(f"images/{image}.jpg")
        for kind in range(9):
            if kind % 3 == 0:
                polygons = rng.uniform(-1, 13, (rng.integers(1, 3), 2 * rng.integers(3, 7)))
                shape = [polygon.round(2).tolist() for polygon in polygons]
            else:
                shape = runs((rng.random((8, 12)) < 0.15 * kind).astype(np.uint8), compressed=kind % 3 == 1)
            annotations.append(annotation(image, (3, 7)[kind % 2], shape, iscrowd=int(kind == 8), area=1))
    path = save(
        data / "annotations/instances_default.json", document([f"{i}.jpg" for i in (1, 2, 3)], annotations)
    )
    with contextlib.redirect_stdout(io.StringIO()):
        own = COCO(str(path))
    table = read_table(data, val_share=0.4)
    for item in table.items:
        masks = [(each, own.annToMask(each)) for each in own.imgToAnns[int(item.image.stem)]]
        truth = np.zeros((8, 12), np.uint8)
        for each, mask in sorted(masks, key=lambda pair: -int(pair[1].sum())):
            truth[mask > 0] = {3: 1, 7: 2}[each["category_id"]]
        assert len(np.unique(truth)) > 1
        np.testing.assert_array_equal(item.mask.read(), truth)


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_smaller_things_stay_visible(data, write_image, order):
    write_image("images/1.jpg")
    write_image("images/2.jpg")
    both = [annotation(1, 3, [LEFT]), annotation(1, 7, [MIDDLE])]
    save(data / "annotations/instances_default.json", document(["1.jpg", "2.jpg"], [both[i] for i in order]))
    mask = next(item for item in read_table(data).items if item.image.name == "1.jpg").mask.read()
    assert mask[0].tolist() == [1] * 6 + [0] * 6
    assert mask[4].tolist() == [1] * 4 + [2] * 4 + [0] * 4


def test_background_steps_aside_for_a_category_of_that_name(data, put):
    put(
        "annotations/instances_default.json",
        "images",
        categories=[{"id": 1, "name": "background"}, {"id": 3, "name": "cat"}],
    )
    assert read_table(data).classes == ("background (unnamed)", "background", "cat")


@pytest.mark.parametrize("heading", ["animals", "cat"])
def test_roboflows_heading_is_no_class(data, put, heading):
    above = {"id": 0, "name": heading, "supercategory": "none"}
    categories = [above, *({**each, "supercategory": heading} for each in CATEGORIES)]
    put("train/_annotations.coco.json", "train", categories=categories)
    put("valid/_annotations.coco.json", "valid", categories=categories)
    table = read_table(data)
    assert table.classes == ("background", "cat", "dog")
    assert table.of("train")[0].mask.read()[0].tolist() == [1] * 6 + [0] * 6


def test_a_test_file_without_annotations_is_left_out(data, put, write_image):
    put("annotations/instances_train.json", "train")
    put("annotations/instances_val.json", "val")
    write_image("test/9.jpg")
    path = save(data / "annotations/instances_test.json", document(["9.jpg"], []))
    table = read_table(data)
    assert splits(table) == {"train": 2, "val": 2}
    assert [(p.kind, p.path) for p in table.warnings] == [("no annotations", path)]


def test_boxes_alone_are_refused(data, put):
    path = put("annotations/instances_train.json", "train")
    content = json.loads(path.read_text())
    content["annotations"] += [
        annotation(2, 3, [], bbox=[0, 0, 2, 2]),
        {"image_id": 2, "category_id": 7, "bbox": [0, 0, 1, 1]},
    ]
    save(path, content)
    with pytest.raises(DataError, match=r"2 of 3 annotations have no segmentation, the first one in image 2"):
        read_table(data)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ([[0, 0, 5, 0, 5, 5, 0]], "a polygon of 7 numbers"),
        ([["a", 0, 5, 0, 5, 5]], "a polygon of 6 numbers"),
        ([[0, 0, 5, 0, 1e9, 5]], r"a point at \(1e\+09, 5\), far outside of 12×8"),
        ([[0, 0, 5, 0, float("nan"), 5]], "a point at"),
        ({"size": [8, 12], "counts": [10, 20]}, "run lengths that do not make 12×8"),
        ({"size": [8, 12], "counts": [0, 500]}, "run lengths that do not"),
        ({"size": [8, 12], "counts": [-4, 100]}, "run lengths that do not"),
        ({"size": [12, 8], "counts": [0, 96]}, "run lengths that do not"),
        ({"size": [8, 12], "counts": "PPYo1"}, "run lengths that do not"),
        ({"size": [8, 12], "counts": "é"}, "run lengths that do not"),
        ({"size": [8, 12]}, "run lengths that do not"),
        ("polygon", "a segmentation that is neither polygons nor run lengths"),
    ],
)  # fmt: skip
def test_a_broken_shape_is_a_problem_of_its_image(data, put, shape, message):
    names = [f"{i}.jpg" for i in range(6)]
    path = put("annotations/instances_train.json", "train", names=names)
    put("annotations/instances_val.json", "val")
    content = json.loads(path.read_text())
    content["annotations"].append(annotation(5, 7, shape))
    save(path, content)
    table = read_table(data)
    report = check_table(table)
    assert [(p.kind, p.path) for p in report.problems] == [("unreadable mask", path)]
    with pytest.raises(DataError, match=f"image 5: {message}"):
        next(item for item in table.items if item.image.name == "4.jpg").mask.read()
    assert len(raise_for(report, skip_bad=True).items) == 7


def test_what_the_file_gets_wrong_is_told_at_once(data, put, write_image):
    names = [f"{i}.jpg" for i in range(8)]
    path = put("annotations/instances_default.json", "images", names=names)
    (data / "images/0.jpg").unlink()
    write_image("images/extra.jpg")
    content = json.loads(path.read_text())
    content["images"][1]["height"] = -8
    content["images"][7]["file_name"] = "6.jpg"
    content["annotations"] += [
        annotation(99, 3, [LEFT]),
        annotation(3, 99, [LEFT]),
        annotation(3, 3, [[0, 0, 1, 1], LEFT]),
    ]
    content["annotations"] += [annotation(8, 3, [LEFT])]
    save(path, content)
    table = read_table(data)
    assert [(p.kind, p.message) for p in table.problems] == [
        ("annotation without place", "1 annotations have an unlisted image_id, such as 99"),
        ("annotation without place", "1 annotations have an unlisted category_id, such as 99"),
        ("image missing", "image '0.jpg' (id 1) is not in images/"),
        ("impossible size", "image '1.jpg' (id 2) has 12×-8 pixels"),
        ("image listed twice", "is listed twice, with different labels or masks"),
    ]
    assert [(p.kind, p.message) for p in table.warnings] == [
        ("polygon without inside", "1 polygons of fewer than three points; left out"),
        ("images not listed", "3 images stand in no JSON file; left out"),
    ]


def test_a_mask_of_another_size_names_its_image(data, put):
    path = put("annotations/instances_default.json", "images", names=[f"{i}.jpg" for i in range(4)])
    content = json.loads(path.read_text())
    content["images"][2]["width"] = 11
    save(path, content)
    assert [p.message for p in check_table(read_table(data)).problems] == ["is 11×8, its image 2.jpg is 12×8"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"images": [', "is no JSON"),
        ('{"images": {}}', "holds no list 'images'"),
        ('{"images": [{"id": 1, "file_name": "1.jpg", "width": 3}]}', r"images\[0\] has no proper height"),
        ('{"images": [], "annotations": [], "categories": []}', "holds no annotations"),
        (json.dumps(document(["1.jpg"], [annotation(1, 3, [LEFT])])).replace("1.jpg", "x.jpg"), "none of the 1 images"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_cocos_is_refused(data, write_image, content, message):
    write_image("images/1.jpg")
    (data / "annotations").mkdir()
    (data / "annotations/instances_default.json").write_text(content)
    with pytest.raises(DataError, match=message):
        read_table(data)


def test_other_categories_in_another_split_are_refused(data, put):
    put("annotations/instances_train.json", "train")
    put("annotations/instances_val.json", "val", categories=[{"id": 3, "name": "car"}])
    with pytest.raises(DataError, match="category 3 is 'car', but 'cat'"):
        read_table(data)


def test_the_fingerprint_follows_the_shapes(data, put):
    path = put("annotations/instances_train.json", "train")
    put("annotations/instances_val.json", "val")
    first = read_table(data)
    content = json.loads(path.read_text())
    save(path, content | {"info": {"year": 2030}})
    assert read_table(data).fingerprint() == first.fingerprint()
    content["annotations"][0]["segmentation"] = [MIDDLE]
    save(path, content)
    assert read_table(data).fingerprint() != first.fingerprint()
    masks = [item.mask for item in first.items]
    assert len(set(masks)) == len(masks) == 4
    assert CocoMask(masks[0].path, masks[0].image_id, b"other") == masks[0]


def test_many_classes_need_sixteen_bits():
    assert paint(8, 12, [(1200, [LEFT])]).dtype == np.uint16
    assert paint(8, 12, [(1200, [LEFT])]).max() == 1200
    assert paint(8, 12, [(200, [LEFT])]).dtype == np.uint8
