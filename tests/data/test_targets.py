"""What is learnt follows --classes and --ignore, by value."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from surgery.artifact.errors import ConfigError, DataError
from surgery.data.table import Item, Table
from surgery.data.targets import resolve_target

MASK = np.asarray([[0, 1, 2], [3, 1, 0]], np.uint8)


def table(task="segment", classes=("road", "car", "bus", "void")):
    items = [Item(Path(f"/d/{i}.png"), i % len(classes), None, "train") for i in range(8)]
    return Table(task, Path("/d"), tuple(classes), tuple(items), "", "given")


def test_one_class_of_a_mask_stands_against_the_rest():
    target = resolve_target(table(), ("car",), ("void",))
    assert (target.output.activation, target.output.classes) == ("sigmoid", ("rest", "car"))
    assert (target.output.mask_values, target.output.rest) == ((0, 1), "rest")
    assert target.encode_mask(MASK).tolist() == [[0, 1, 0], [255, 1, 0]]


def test_several_classes_keep_their_order_after_the_rest():
    target = resolve_target(table(), ("bus", "car"), ("void",))
    assert (target.output.activation, target.output.classes) == ("softmax", ("rest", "bus", "car"))
    assert target.output.mask_values == (0, 1, 2)
    assert target.encode_mask(MASK).tolist() == [[0, 2, 1], [255, 2, 0]]


def test_all_classes_keep_their_mask_values():
    target = resolve_target(table(), (), ("car",))
    assert target.output.classes == ("road", "bus", "void")
    assert (target.output.mask_values, target.output.rest) == ((0, 2, 3), None)
    assert target.encode_mask(MASK).tolist() == [[0, 255, 1], [2, 255, 0]]


def test_a_value_without_a_class_is_refused_unless_it_is_ignored():
    mask = np.asarray([[0, 255], [1, 7]], np.uint8)
    with pytest.raises(DataError, match=r"a\.png: values 7, 255 have no class; 0–3 have"):
        resolve_target(table()).encode_mask(mask, "a.png")
    target = resolve_target(table(), (), ("255", "7"))
    assert target.encode_mask(mask).tolist() == [[0, 255], [1, 255]]
    with pytest.raises(DataError, match="values 6 have"):
        target.encode_mask(np.asarray([[6]], np.uint8))
    with pytest.raises(DataError, match="values 60000"):
        target.encode_mask(np.asarray([[60000]], np.uint16))


def test_grey_saved_as_colour_is_taken_back_and_colour_refused():
    target = resolve_target(table())
    assert target.encode_mask(np.repeat(MASK[..., None], 3, axis=2)).tolist() == MASK.tolist()
    with pytest.raises(DataError, match="colour image"):
        target.encode_mask(np.stack([MASK, MASK, MASK + 1], axis=2))


def test_labels_are_chosen_and_renumbered_in_the_order_of_the_wish():
    labels = table("classify")
    target = resolve_target(labels, ("bus", "road"), ())
    chosen = target.select(labels)
    assert target.output.classes == chosen.classes == ("bus", "road")
    assert [(item.image.name, item.label) for item in chosen.items] == [
        ("0.png", 1), ("2.png", 0), ("4.png", 1), ("6.png", 0),
    ]  # fmt: skip
    assert resolve_target(labels, (), ("car", "void")).output.classes == ("road", "bus")


def test_unknown_names_are_told_all_at_once_with_the_nearest():
    with pytest.raises(ConfigError) as caught:
        resolve_target(table(), ("Carr", "plane"), ())
    assert "'Carr' is not one of the 4 classes (nearest: 'car')" in caught.value.message
    assert "'plane'" in caught.value.message
    assert "road, car, bus, void" in caught.value.hint


@pytest.mark.parametrize(
    ("classes", "ignore", "message"),
    [
        (("car",), ("car",), "in --classes and in --ignore"),
        ((), ("road", "car", "bus"), "only 1 class"),
        ((), ("1",), "is the class 'car'"),
        ((), ("70000",), "65535"),
    ],
)
def test_wishes_that_leave_nothing_to_learn_are_refused(classes, ignore, message):
    with pytest.raises(ConfigError, match=message):
        resolve_target(table(), classes, ignore)


def test_one_label_alone_cannot_be_learnt():
    with pytest.raises(ConfigError, match="two or more"):
        resolve_target(table("classify"), ("car",), ())


def test_a_class_that_is_called_rest_stays_itself():
    target = resolve_target(table(classes=("road", "rest")), ("rest",), ())
    assert target.output.classes == ("rest (unnamed)", "rest")


def test_of_several_labels_those_left_out_go_and_the_images_stay():
    items = tuple(
        Item(Path(f"/d/{i}.png"), None, None, "train", labels)
        for i, labels in enumerate([(0, 2), (1,), (), (0, 1, 2)])
    )
    table = Table("classify", Path("/d"), ("a", "b", "c"), items, "csv", "given", multilabel=True)
    target = resolve_target(table, classes=("c", "a"))
    assert (target.output.activation, target.output.classes, target.output.logits) == (
        "sigmoid",
        ("c", "a"),
        2,
    )
    assert [item.labels for item in target.select(table).items] == [(0, 1), (), (), (0, 1)]
    assert resolve_target(table, classes=("b",)).output.multilabel
