"""Weights and draws for classes of unequal frequency."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.utils.class_weight import compute_class_weight

from surgery.data.balance import balanced_weights, class_frequencies, draw_balanced
from surgery.data.masks import IndexMask
from surgery.data.table import Item, Table
from surgery.data.targets import resolve_target


def table(items: list[Item], task: str, several: bool = False) -> Table:
    return Table(task, Path("/d"), ("a", "b", "c"), tuple(items), "", "given", several)  # type: ignore[arg-type]


def test_labels_weigh_as_in_scikit_learn() -> None:
    labels = [0] * 10 + [1] * 4 + [2] * 2
    data = table([Item(Path(f"{i}"), label, None, "train") for i, label in enumerate(labels)], "classify")
    wanted = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert balanced_weights(data, resolve_target(data)) == pytest.approx(list(wanted))


def test_of_several_labels_the_absent_count_over_the_present() -> None:
    labels = [(0,)] * 6 + [(0, 1)] * 2 + [()] * 2
    items = [Item(Path(f"{i}"), None, None, "train", each) for i, each in enumerate(labels)]
    data = table(items, "classify", several=True)
    assert balanced_weights(data, resolve_target(data)) == pytest.approx([2 / 8, 8 / 2, 10])


def test_pixels_weigh_by_their_classes(tmp_path: Path) -> None:
    mask = np.repeat(np.array([0] * 6 + [1] * 3 + [2], np.uint8)[None], 4, 0)
    Image.fromarray(mask).save(tmp_path / "m.png")
    data = table([Item(tmp_path / "i.png", None, IndexMask(tmp_path / "m.png"), "train")], "segment")
    assert balanced_weights(data, resolve_target(data)) == pytest.approx([10 / 18, 10 / 9, 10 / 3])
    one = resolve_target(data, ("b",), ("c",))
    assert balanced_weights(data, one) == pytest.approx([2.0])


def test_a_balanced_draw_shows_all_classes_alike() -> None:
    items = [Item(Path(f"{i}"), 0 if i < 900 else 1, None, "train") for i in range(1000)]
    counts = Counter(items[i].label for i in draw_balanced(items, 0, 3))
    assert sum(counts.values()) == 1000
    assert counts[1] == pytest.approx(500, abs=60)
    assert draw_balanced(items, 0, 3) == draw_balanced(items, 0, 3) != draw_balanced(items, 0, 4)


def test_frequencies_are_the_shares_of_the_training_images() -> None:
    sides = zip([0, 0, 0, 1, 2], ["train"] * 4 + ["val"], strict=True)
    data = table([Item(Path(f"{i}"), k, None, side) for i, (k, side) in enumerate(sides)], "classify")
    assert class_frequencies(data, resolve_target(data)).tolist() == [0.75, 0.25, 0]
