"""Splits that are drawn: stratified, repeatable, never between images that look the same."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.model_selection import train_test_split

from surgery.artifact.image import read_image
from surgery.data.masks import IndexMask
from surgery.data.similar import group_similar, look_at
from surgery.data.splits import draw_val, record_split
from surgery.data.table import Item


def scene(seed: int) -> Image.Image:
    """A picture with large soft shapes, as photographs have them."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (5, 6, 3)).astype(np.uint8)
    fine = rng.normal(0, 6, (90, 120, 3))
    pixels = np.asarray(Image.fromarray(coarse).resize((120, 90), Image.Resampling.BICUBIC)) + fine
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def saved(folder: Path, count: int) -> list[Path]:
    paths = []
    for i in range(count):
        scene(i).save(folder / f"{i:03}.png")
        paths.append(folder / f"{i:03}.png")
    return paths


def sides(items: list[Item]) -> dict[str, str]:
    return {item.image.name: item.split for item in items}


def test_images_that_look_the_same_are_found(tmp_path: Path) -> None:
    paths = saved(tmp_path, 30)
    scene(3).save(tmp_path / "again.jpg", quality=60)
    scene(3).resize((60, 45)).save(tmp_path / "small.png")
    scene(3).point(lambda level: min(255, level + 12)).save(tmp_path / "brighter.png")
    scene(3).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "mirrored.png")
    paths += [tmp_path / name for name in ("again.jpg", "small.png", "brighter.png", "mirrored.png")]
    assert group_similar([look_at(path) for path in paths]) == [[3, 30, 31, 32]]


def test_images_without_anything_in_them_are_told_apart_by_their_files(tmp_path: Path) -> None:
    for i in range(6):
        Image.new("RGB", (20, 20), (100 + i, 155 - i, 90)).save(tmp_path / f"{i}.png")
    assert not group_similar([look_at(tmp_path / f"{i}.png") for i in range(6)])
    assert look_at(tmp_path / "none.png") is None
    assert look_at(tmp_path / "0.png", read_image(tmp_path / "5.png")) is not None


def test_what_looks_the_same_stays_on_one_side(tmp_path: Path) -> None:
    items = []
    for i in range(12):
        for frame in range(3):
            path = tmp_path / f"{i}-{frame}.jpg"
            scene(i).save(path, quality=50 + 20 * frame)
            items.append(Item(path, i % 2, None, "train"))
    for seed in range(4):
        by_scene: dict[str, set[str]] = {}
        for name, side in sides(draw_val(items, 0.25, seed)).items():
            by_scene.setdefault(name.split("-")[0], set()).add(side)
        assert all(len(each) == 1 for each in by_scene.values())
        assert Counter(side for (side,) in by_scene.values()) == {"train": 9, "val": 3}


def test_an_image_never_changes_its_side_when_the_data_grows(tmp_path: Path) -> None:
    items = [Item(path, i % 3, None, "train") for i, path in enumerate(saved(tmp_path, 60))]
    first = draw_val(items[:30], 0.2, 0)
    recorded = record_split(first)
    seen = int(next(item.image.stem for item in first if item.split == "val"))
    scene(seen).save(tmp_path / "late.jpg", quality=70)
    late = Item(tmp_path / "late.jpg", 0, None, "train")
    for seed in range(4):
        after = sides(draw_val([*items, late], 0.2, seed, recorded))
        assert all(after[name] == side for name, side in sides(first).items())
        assert after["late.jpg"] == "val"  # what looks like it stands there
        assert Counter(after.values())["val"] == pytest.approx(13, abs=1)
    unrecorded = sides(draw_val(items, 0.2, 0))
    assert any(unrecorded[name] != side for name, side in sides(first).items())


def labelled(paths: list[Path], counts: list[int]) -> list[Item]:
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    return [Item(path, label, None, "train") for path, label in zip(paths, labels, strict=True)]


def seen(items: list[Item]) -> Counter[tuple[int | None, str]]:
    return Counter((item.label, item.split) for item in items)


@pytest.mark.parametrize("share", [0.2, 0.8])
def test_every_class_with_two_images_is_on_both_sides(tmp_path: Path, share: float) -> None:
    items = labelled(saved(tmp_path, 60), [50, 2, 3, 4, 1])
    for seed in range(12):
        found = seen(draw_val(items, share, seed))
        assert all(found[label, side] for label in range(4) for side in ("train", "val"))
        assert found[4, "train"] == 1
        assert abs(found[0, "val"] - 50 * share) <= 3


def test_a_class_that_comes_later_is_on_both_sides_too(tmp_path: Path) -> None:
    paths = saved(tmp_path, 53)
    recorded = record_split(draw_val(labelled(paths[:50], [50]), 0.2, 0))
    for seed in range(8):
        found = seen(draw_val(labelled(paths, [50, 2, 1]), 0.2, seed, recorded))
        assert (found[1, "train"], found[1, "val"], found[2, "train"]) == (1, 1, 1)


def test_a_split_of_large_classes_is_the_stratified_draw(tmp_path: Path) -> None:
    items = labelled(saved(tmp_path, 40), [20, 20])
    _, drawn = train_test_split(
        range(40), test_size=8, random_state=3, stratify=[item.label for item in items]
    )
    assert {i for i, item in enumerate(draw_val(items, 0.2, 3)) if item.split == "val"} == set(drawn)


def test_masks_are_split_by_their_pixels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    items, shares = [], {}
    for i, path in enumerate(saved(tmp_path, 60)):
        mask = np.zeros((20, 20), np.uint8)
        mask[: rng.integers(0, 3)] = 1
        if i % 10 == 0:
            mask[10:, :15] = 2  # in few images only
        Image.fromarray(mask).save(tmp_path / f"{i:03}-mask.png")
        shares[path] = np.bincount(mask.ravel(), minlength=3) / mask.size
        items.append(Item(path, None, IndexMask(tmp_path / f"{i:03}-mask.png"), "train"))
    for seed in range(3):
        found = draw_val(items, 0.2, seed)
        val = [shares[item.image] for item in found if item.split == "val"]
        assert len(val) == 12
        part = np.sum(val, 0) / np.sum(list(shares.values()), 0)
        np.testing.assert_allclose(part, 0.2, atol=0.05)


def test_images_with_several_labels_are_split_evenly(tmp_path: Path) -> None:
    kinds = [(0,)] * 30 + [(0, 1)] * 10 + [(0, 1, 2)] * 5 + [()] * 5
    items = [Item(path, None, None, "train", kinds[i]) for i, path in enumerate(saved(tmp_path, 50))]
    found = draw_val(items, 0.2, 0)
    drawn = Counter(label for item in found if item.split == "val" for label in item.labels or ())
    assert (drawn[0], drawn[1], drawn[2]) == (9, 3, 1)
    assert found == draw_val(items, 0.2, 0)
