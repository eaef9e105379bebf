"""The page of `--preview`: what training would see, in one file that needs nothing else."""

from __future__ import annotations

import base64
import io
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from surgery.artifact.image import read_image
from surgery.artifact.manifest import InputSpec
from surgery.cli import main
from surgery.data.readers import read_table
from surgery.data.transforms import make_view, view_seed

EVIL = "<b>rook & crow"


class Page(HTMLParser):
    """What a page holds: its tags with their attributes, and its text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def pictures(self) -> list[np.ndarray]:
        sources = [str(attrs["src"]) for tag, attrs in self.tags if tag == "img"]
        return [
            np.asarray(Image.open(io.BytesIO(base64.b64decode(src.partition(",")[2])))) for src in sources
        ]

    def count(self, name: str) -> int:
        return sum(tag == name for tag, _ in self.tags)


def preview(capsys: pytest.CaptureFixture[str], *arguments: object) -> Page:
    assert main(["finetune", *map(str, arguments), "--preview", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert list(said) == ["preview"]
    return Page(Path(said["preview"]))


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Smooth pictures of two classes, one of which is named as a tag: 9 and 3 for training."""
    y, x = np.mgrid[:40, :60].astype(np.float32)
    for label, count in (("daw", 3), (EVIL, 9)):
        for split in ("train", "val"):
            folder = tmp_path / "birds" / split / label
            folder.mkdir(parents=True)
            for i in range(count if split == "train" else 1):
                plane = np.sin(x / (7 + i)) * np.cos(y / (5 + len(label))) * 100 + 120 + 3 * (split == "val")
                Image.fromarray(np.stack([plane, plane / 2, 255 - plane], 2).astype(np.uint8)).save(
                    folder / f"{i}.png"
                )
    return tmp_path / "birds"


@pytest.fixture
def masked(tmp_path: Path) -> Path:
    """Grey pictures whose right half is a box, and whose lowest rows nobody labelled."""
    root = tmp_path / "boxes"
    for split in ("train", "val"):
        for i in range(3):
            mask = np.zeros((48, 64), np.uint8)
            mask[:, 32:] = 1
            mask[40:] = 2
            image = np.full((48, 64, 3), 100 + 10 * i + 5 * (split == "val"), np.uint8)
            for folder, pixels in (("images", image), ("masks", mask)):
                (root / split / folder).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(root / split / folder / f"{i}.png")
    (root / "classes.txt").write_text("ground\nbox\nvoid\n")
    return root


def test_eight_images_each_plain_and_in_five_views(labelled, capsys, rooms):
    page = preview(capsys, labelled, "--name", "birds", "--image-size", "64x48")
    assert page.count("section") == 8
    assert page.count("figure") == page.count("img") == 8 * 6
    assert [p.name for p in (rooms / "runs").iterdir()] == ["preview-birds.html"]  # and no run
    assert not (rooms / "models").exists()


def test_the_views_are_those_of_training(labelled, capsys):
    page = preview(
        capsys, labelled, "--name", "birds", "--image-size", "64x48", "--seed", "5", "--augment", "heavy"
    )
    pictures = page.pictures()
    table = read_table(labelled)
    items = table.of("train")
    view = make_view(InputSpec("crop", 64, 48), "heavy")
    for k in range(8):
        item = items[k * len(items) // 8]
        seeds = [view_seed(5, table.content_hash(item), number) for number in range(6)]
        image = read_image(item.image)
        views = [view(image, None, seed, plain=n == 0)[0] for n, seed in enumerate(seeds)]
        for number in range(6):  # the picture is compressed, but nearest to its own view
            apart = [np.abs(pictures[6 * k + number].astype(int) - seen).mean() for seen in views]
            assert apart[number] == min(apart) < 25


def test_names_are_escaped(labelled, capsys):
    page = preview(capsys, labelled, "--name", "birds", "--image-size", "32")
    assert page.count("b") == 1  # the page's own
    assert page.text.count(EVIL) >= 6
    assert "daw" in page.text


def test_the_page_needs_no_network_and_no_script(labelled, capsys, rooms):
    page = preview(capsys, labelled, "--name", "birds", "--image-size", "32", "--augment", "domain")
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "base"}
    for _, attrs in page.tags:
        assert "href" not in attrs
        assert str(attrs.get("src", "data:image/")).startswith("data:image/")
    text = (rooms / "runs" / "preview-birds.html").read_text("utf-8")
    assert not re.search(r"https?:|//[a-z]|@import|url\(", re.sub(r"base64,[^\"]+", "", text))
    metas = [attrs for tag, attrs in page.tags if tag == "meta"]
    assert any(
        attrs.get("name") == "viewport" and "width=device-width" in str(attrs["content"]) for attrs in metas
    )
    assert "prefers-color-scheme: dark" in text


def test_masks_are_drawn_in_and_what_is_ignored_is_named(masked, capsys):
    page = preview(
        capsys, masked, "--name", "boxes", "--classes", "box", "--ignore", "void", "--augment", "flip"
    )
    assert page.count("section") == 3
    plain, mirrored = page.pictures()[:2]
    assert page.count("img") == 3 * 2
    grey = [np.ptp(picture[8:32].astype(int), axis=2).mean(axis=0) < 12 for picture in (plain, mirrored)]
    assert grey[0][4:28].all()
    assert not grey[0][36:60].any()
    assert grey[1][36:60].all()
    assert not grey[1][4:28].any()
    assert np.ptp(plain[44:].astype(int), axis=2).min() > 12
    assert "left out of the loss" in page.text
    assert "rest: not drawn" in page.text


def test_the_steps_on_the_page_are_a_file_for_augment(labelled, capsys, tmp_path):
    first = preview(capsys, labelled, "--name", "birds", "--image-size", "32", "--augment", "medium")
    steps = first.text.partition("as a file for --augment")[2].partition("\n\n")[0]
    (tmp_path / "mine.yaml").write_text(steps)
    again = preview(
        capsys, labelled, "--name", "birds", "--image-size", "32", "--augment", tmp_path / "mine.yaml"
    )
    assert all(np.array_equal(a, b) for a, b in zip(first.pictures(), again.pictures(), strict=True))


def test_a_wrong_pipeline_gets_no_page(labelled, capsys, rooms, tmp_path):
    (tmp_path / "mine.yaml").write_text("- CenterCrop: {height: 8, width: 8}\n")
    arguments = [
        "finetune",
        str(labelled),
        "--name",
        "b",
        "--augment",
        str(tmp_path / "mine.yaml"),
        "--preview",
    ]
    assert main(arguments) == 2
    assert "of 8×8; the network's input is 224×224" in capsys.readouterr().err
    assert not (rooms / "runs").exists()


def test_without_json_the_path_alone_is_printed(labelled, capsys, rooms):
    assert main(["finetune", str(labelled), "--name", "birds", "--image-size", "32", "--preview"]) == 0
    assert capsys.readouterr().out == f"{rooms / 'runs' / 'preview-birds.html'}\n"
    assert "jinja2" in sys.modules


def test_where_the_input_grows_the_views_go_through_its_sizes(labelled, masked, capsys, rooms):
    page = preview(capsys, labelled, "--name", "b", "--image-size", "96", "--resize-from", "0.4")
    sides = [picture.shape[:2] for picture in page.pictures()[:6]]
    assert sides == [(96, 96), (32, 32), (32, 32), (64, 64), (64, 64), (96, 96)]
    assert "grows: 32×32, then 64×64, then 96×96." in page.text
    assert "view 1, 32×32" in page.text
    page = preview(capsys, masked, "--name", "b", "--resize-from", "0.5", "--augment", "light")
    assert [picture.shape[:2] for picture in page.pictures()[:2]] == [(48, 64), (24, 32)]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--image-size", "32"), "inputs of 32×32 cannot be made smaller"),
        (("--epochs", "1"), "in one epoch the input cannot grow"),
        (("--image-size", "96", "--augment", "mine.yaml"), "one of 96×96; the network's input is 64×64"),
    ],
)
def test_growth_that_cannot_be_is_refused_before_training(labelled, capsys, rooms, options, said):
    (rooms / "mine.yaml").write_text("- RandomResizedCrop: {size: [96, 96]}\n")
    command = ["finetune", str(labelled), "--name", "b", "--resize-from", "0.5", *options, "--preview"]
    assert main(command) == 2
    assert said in capsys.readouterr().err
