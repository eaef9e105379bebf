"""The page of a data check shows every class, draws masks where they are, and asks nobody."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from test_report import Page

from surgery.data.check import check_table
from surgery.data.readers import read_table
from surgery.data.report import Report
from surgery.data.targets import resolve_target
from surgery.report import samples
from surgery.report.data_page import (
    FOLDED,
    SHOWN,
    class_rows,
    group_findings,
    left_out_shares,
    render_data_page,
)
from surgery.report.pictures import OPACITY, draw_class
from surgery.report.samples import choose_samples, draw_pairs, draw_samples, mask_colours

EVIL = "<b>rook & crow"
GREYS = {"train": 100, "val": 120}
"""Of the first street of a split; each further one is lighter by 1."""


def ignore_progress(done: int, total: int) -> None:
    assert 0 < done <= total


def opened(source: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).convert("RGB"))


def paint(path: Path, seed: int, size: tuple[int, int] = (40, 30)) -> None:
    """Write a smooth picture that looks like none of another seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rough = np.random.default_rng(seed).integers(0, 255, (4, 5, 3)).astype(np.uint8)
    Image.fromarray(rough).resize(size, Image.Resampling.BICUBIC).save(path)


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    """Two classes, one named like a tag: 20 and 3 images for training, 5 and 2 for val."""
    seed = iter(range(1000))
    for label, counts in ((EVIL, (20, 5)), ("daw", (3, 2))):
        for split, count in zip(("train", "val"), counts, strict=True):
            for k in range(count):
                paint(tmp_path / "birds" / split / label / f"{k:02d}.png", next(seed))
    return tmp_path / "birds"


@pytest.fixture
def streets(tmp_path: Path) -> Path:
    """Grey pictures of 80 × 60: the left (k + 3) / 20 are road, the top right corner is car, the rest void."""
    root = tmp_path / "streets"
    for split, count in (("train", 12), ("val", 3)):
        for k in range(count):
            mask = np.full((60, 80), 2, np.uint8)
            mask[:, : 4 * (k + 3)] = 0
            mask[:20, 60:] = 1
            image = np.full((60, 80, 3), GREYS[split] + k, np.uint8)
            for folder, pixels in (("images", image), ("masks", mask)):
                (root / split / folder).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(root / split / folder / f"{k:02d}.png")
    (root / "classes.txt").write_text("road\ncar\nvoid\nbus\n")
    return root


def checked(root: Path, classes: tuple[str, ...] = (), ignore: tuple[str, ...] = ()) -> Report:
    table = read_table(root)
    return check_table(table, resolve_target(table, classes, ignore))


def test_every_class_is_shown_from_every_split(birds):
    report = checked(birds)
    cards = draw_samples(report, ignore_progress)
    names = {report.table.classes[index]: found for index, found in cards.items() if index is not None}
    assert len(names[EVIL]) == 8
    assert [card.split for card in names[EVIL]] == ["train"] * 6 + ["val"] * 2
    assert sorted(card.file for card in names["daw"]) == [
        *(f"train/daw/{k:02d}.png" for k in range(3)),
        *(f"val/daw/{k:02d}.png" for k in range(2)),
    ]
    for card in (*names[EVIL], *names["daw"]):
        assert np.array_equal(opened(card.source), np.asarray(Image.open(birds / card.file)))
    page = Page(render_data_page(report, "birds", ignore_progress))
    assert len(page.all("img")) == 8 + 5


def test_samples_are_spread_over_the_data(birds):
    report = checked(birds)
    index = report.table.classes.index(EVIL)
    train = [int(item.image.stem) for item in choose_samples(report, index, 6) if item.split == "train"]
    assert train == [2, 6, 10, 14, 18]
    assert len(choose_samples(report, index, 1)) == 1
    assert choose_samples(report, index, 100) == [item for item in report.table.items if item.label == index]


def test_samples_of_masks_are_images_with_much_of_the_class(streets):
    report = checked(streets)
    chosen = choose_samples(report, 0, 4)
    train = [int(item.image.stem) for item in chosen if item.split == "train"]
    assert train == [8, 10, 11]
    assert [item.split for item in chosen] == ["train"] * 3 + ["val"]
    assert choose_samples(report, 3, 4) == []


def test_images_at_fault_are_shown_only_where_there_are_no_others(birds):
    (birds / "train/daw/00.png").write_bytes(b"no image")
    report = checked(birds)
    daw = report.table.classes.index("daw")
    assert [item.image.name for item in choose_samples(report, daw, 8)] == [
        "01.png",
        "02.png",
        "00.png",
        "01.png",
    ]
    for path in birds.glob("*/daw/*.png"):
        path.write_bytes(b"no image")
    report = checked(birds)
    assert draw_samples(report, ignore_progress)[daw] == []
    assert "Without a sample: daw" in Page(render_data_page(report, "birds", ignore_progress)).text


def test_the_colour_lies_where_the_class_is(streets):
    report = checked(streets)
    colours = mask_colours(report.table)
    assert len(set(colours.values())) == 4
    for index, name in enumerate(("road", "car")):
        for card in draw_samples(report, ignore_progress)[index]:
            grey = GREYS[card.split] + int(Path(card.file).stem)
            wanted = grey * (1 - OPACITY) + np.array(colours[name]) * OPACITY
            seen = opened(card.source).astype(float)
            mask = np.asarray(Image.open(report.table.root / card.file.replace("images", "masks")))
            held, wide = (mask == index).view(np.uint8), np.ones((7, 7), np.uint8)
            core, near = cv2.erode(held, wide).view(bool), cv2.dilate(held, wide).view(bool)
            assert np.abs(seen[core].mean(axis=0) - wanted).max() < 4
            assert np.abs(seen[core] - wanted).max() < 16  # the picture is compressed
            assert np.ptp(seen[~near], axis=1).max() < 16  # grey


def test_a_class_drawn_alone_has_known_pixels():
    image = np.full((20, 30, 3), (200, 100, 0), np.uint8)
    mask = np.zeros((20, 30), np.uint8)
    mask[5:15, 10:20] = 7
    mask[:, 25:] = 3
    drawn = draw_class(image, mask, 7, (0, 0, 255), 100)
    assert drawn[10, 15].tolist() == [110, 55, round(255 * OPACITY)]
    assert drawn[5, 10].tolist() == [0, 0, 255]  # its edge
    assert drawn[2, 2].tolist() == [114, 114, 114]  # faint: halfway between grey 100 and 128
    assert drawn[2, 24].tolist() == [170, 170, 170]  # the edge of another class
    thin = np.zeros((100, 100), np.uint8)
    thin[:, 50] = 1
    small = draw_class(np.zeros((100, 100, 3), np.uint8), thin, 1, (255, 0, 0), 10)
    assert small.shape == (10, 10, 3)
    assert small[5].tolist().count([255, 0, 0]) == 1


def test_the_table_of_classes_counts_and_marks(streets):
    rows = {row["name"]: row for row in class_rows(checked(streets, (), ("void",)))}
    assert rows["bus"]["marks"] == ["none in train"]
    assert rows["void"]["state"] == "left out"
    assert rows["car"]["cells"][0]["images"] == 12
    assert rows["car"]["cells"][0]["share"] == pytest.approx(400 / 4800)
    assert rows["road"]["cells"][0]["share"] == pytest.approx(4 * 60 * 8.5 / 4800)
    chosen = {row["name"]: row["state"] for row in class_rows(checked(streets, ("car",), ("void",)))}
    assert chosen == {"road": "part of the rest", "car": "", "void": "left out", "bus": "part of the rest"}


def test_what_counts_nowhere_is_said(streets):
    assert left_out_shares(checked(streets)) == {}
    shares = left_out_shares(checked(streets, (), ("void",)))
    assert shares["val"] == pytest.approx(1 - 400 / 4800 - 4 * 60 * 4 / 4800)
    text = Page(render_data_page(checked(streets, (), ("void",)), "s", ignore_progress)).text
    assert f"{shares['val']:.1%} of the pixels of val count neither" in text


def test_values_without_a_name_stand_in_the_table(streets):
    for path in sorted((streets / "train/masks").iterdir()):
        mask = np.array(Image.open(path))
        mask[-3:] = 77
        Image.fromarray(mask).save(path)
    page = Page(render_data_page(checked(streets), "streets", ignore_progress))
    assert "77 no name not in the list of classes 5.00% none" in page.text
    assert "unnamed values 12" in page.text
    page = Page(render_data_page(checked(streets, (), ("77",)), "streets", ignore_progress))
    assert "77 no name, left out 5.00% none" in page.text


def test_rare_and_unequal_classes_are_marked(birds):
    for k in range(20, 31):
        paint(birds / "train" / EVIL / f"{k}.png", 2000 + k)
    rows = {row["name"]: row["marks"] for row in class_rows(checked(birds))}
    assert rows == {"daw": ["3 images", "smallest"], EVIL: ["largest"]}


def test_copies_stand_side_by_side(birds):
    leak, again = birds / "val" / "daw" / "leak.png", birds / "train" / EVIL / "again.png"
    leak.write_bytes((birds / "train/daw/01.png").read_bytes())
    again.write_bytes((birds / "train" / EVIL / "07.png").read_bytes())
    picture = Image.open(birds / "train" / EVIL / "05.png")
    picture.resize((80, 60), Image.Resampling.BICUBIC).save(birds / "val" / EVIL / "larger.png")
    found = {group["kind"]: group for group in draw_pairs(checked(birds))}
    pairs = {
        kind: [tuple(card.file for card in pair) for pair in group["pairs"]] for kind, group in found.items()
    }
    assert pairs == {
        "same image in two splits": [("train/daw/01.png", "val/daw/leak.png")],
        "same image twice": [(f"train/{EVIL}/07.png", f"train/{EVIL}/again.png")],
        "similar images in two splits": [(f"train/{EVIL}/05.png", f"val/{EVIL}/larger.png")],
    }
    one, other = found["same image in two splits"]["pairs"][0]
    assert one.source == other.source
    page = Page(render_data_page(checked(birds), "birds", ignore_progress))
    assert sum(attributes["src"] == one.source for attributes in page.all("img")) >= 2


def test_images_without_a_label_are_shown_too(tmp_path):
    rows = ["path,label,split"]
    for k in range(12):
        paint(tmp_path / f"{k:02d}.png", k)
        labels = ["ant;red", "ant", "red", ""][k % 4]
        rows.append(f"{k:02d}.png,{labels},{'val' if k > 7 else 'train'}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    cards = draw_samples(checked(tmp_path), ignore_progress)
    assert {card.file for card in cards[None]} == {"03.png", "07.png", "11.png"}
    assert {card.file: card.note for card in cards[0]} == {
        f"{k:02d}.png": "red" if k % 4 == 0 else "" for k in (0, 1, 4, 5, 8, 9)
    }


@pytest.mark.parametrize("data", ["birds", "streets"])
def test_the_page_is_the_same_and_asks_nobody(data, request):
    root = request.getfixturevalue(data)
    text = render_data_page(checked(root), EVIL, ignore_progress)
    assert text == render_data_page(checked(root), EVIL, ignore_progress)
    page = Page(text)
    assert not {"script", "link", "iframe", "object", "image", "use", "base"} & {tag for tag, _ in page.tags}
    assert all(str(image["src"]).startswith("data:image/webp;base64,") for image in page.all("img"))
    assert all(str(link["href"]).startswith("#") for link in page.all("a"))
    ids = {attributes["id"] for attributes in page.all("section")}
    assert {str(link["href"])[1:] for link in page.all("a")} == ids
    assert not re.search(r"https?:|url\(|@import", re.sub(r"base64,[^\"]+", "", text))
    assert "prefers-color-scheme: dark" in text


def test_names_are_text_and_nothing_else(birds):
    (birds / "train" / EVIL / "<i>cut.png").write_bytes(b"")
    text = render_data_page(checked(birds), EVIL, ignore_progress)
    assert "<b>rook" not in text
    assert "<i>cut" not in text
    page = Page(text)
    assert f"train/{EVIL}/<i>cut.png empty, 0 bytes" in page.text
    assert EVIL in page.text


def test_a_flood_of_problems_is_folded_and_bounded():
    many = [{"kind": "bad", "path": f"{k}.png", "message": "m"} for k in range(FOLDED + 30)]
    (group,) = group_findings(many)
    assert (len(group["open"]), len(group["folded"]), group["left"]) == (SHOWN, FOLDED - SHOWN, 30)
    assert group_findings(many[:3])[0]["folded"] == []


def test_pictures_end_where_there_is_no_more_room(birds, monkeypatch):
    report = checked(birds)
    whole = draw_samples(report, ignore_progress)
    monkeypatch.setattr(samples, "MOST_BYTES", 3 * max(len(card.source) for card in whole[0] + whole[1]))
    cut = draw_samples(report, ignore_progress)
    assert 3 <= sum(map(len, cut.values())) < 13
    assert all(cut[index] and cut[index] == whole[index][: len(cut[index])] for index in (0, 1))
    monkeypatch.setattr(samples, "MOST_PICTURES", 1)
    assert [len(found) for found in draw_samples(report, ignore_progress).values()] == [1, 0]
