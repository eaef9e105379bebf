"""Splits that are drawn: stratified, repeatable, never between copies."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from PIL import Image

from surgery.data.splits import draw_val
from surgery.data.table import Item


def test_images_with_several_labels_are_stratified_by_the_rarest(tmp_path: Path) -> None:
    kinds = [(0,)] * 40 + [(0, 1)] * 10 + [(0, 1, 2)] * 5 + [()] * 5
    items = []
    for i, labels in enumerate(kinds):
        path = tmp_path / f"{i}.png"
        Image.new("RGB", (4, 4), (i, 7, 9)).save(path)
        items.append(Item(path, None, None, "train", labels))
    found = draw_val(items, 0.2, 0)
    drawn = Counter(item.labels for item in found if item.split == "val")
    assert drawn == {(0,): 8, (0, 1): 2, (0, 1, 2): 1, (): 1}
    assert found == draw_val(items, 0.2, 0)
