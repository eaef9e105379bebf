"""The report holds every section, opens without a network, and shows what is really worst."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from unsealed import CLASSES, SCALE, make_labels, make_masks

from surgery.artifact.errors import SurgeryError
from surgery.config import load_recipe
from surgery.deliver.package import Unsealed
from surgery.report import REPORT_FILE
from surgery.report.command import command_line
from surgery.report.mistakes import find_mistakes
from surgery.report.page import write_report
from surgery.train import interrupt
from surgery.train.lr_range import RangeTest
from surgery.train.reporting import Reporter
from surgery.train.run import RATES_FILE

SECTIONS = ("scores", "learning", "classes", "calibration", "mistakes", "layers", "data", "parity", "made")
VOID = {"meta", "img", "link", "br", "hr", "input"}


class Page(HTMLParser):
    """What stands in a page; fails where a tag is not closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def grey(k: int, gap: int) -> tuple[int, int, int]:
    """A shade whose channel k is stronger than the others by `gap`."""
    shade = [100, 100, 100]
    shade[k] += gap
    return shade[0], shade[1], shade[2]


def labels(folder: Path, mistaken: int = 6) -> Unsealed:
    """Thirty images; the first `mistaken` have a wrong truth, each wrong by more than the one before."""
    shades = [grey(k % 3, 10 + 5 * k if k < mistaken else 60) for k in range(30)]
    truths = [(k + 1) % 3 if k < mistaken else k % 3 for k in range(30)]
    return make_labels(folder, shades, truths)


def several(folder: Path) -> Unsealed:
    """All logits are positive, so every class is answered; only the image of three labels is right."""
    return make_labels(folder, [grey(k % 3, 20 + k) for k in range(12)], [(), (0, 1), (0, 1, 2)] * 4)


def masks(folder: Path) -> Unsealed:
    """Four images that are green and blue in halves; of the k-th a (k+1)-th of the truth is elsewhere."""
    images, truths = [], []
    for k in range(4):
        image = np.zeros((24, 48, 3), np.uint8)
        image[:, :20, 1] = image[:, 20:40, 2] = 200  # what is black is the rest, which is no learnt class
        truth = np.where(image[:, :, 1] > 0, 1, image[:, :, 2] // 100).astype(np.uint8)
        truth[: 6 * k, :20] = 2
        truth[0, :] = 255
        images.append(image)
        truths.append(truth)
    return make_masks(folder, images, truths)


def written(version: Unsealed) -> str:
    write_report(version, Reporter())
    return (version.folder / REPORT_FILE).read_text("utf-8")


@pytest.mark.parametrize("make", [labels, several, masks])
def test_the_page_holds_everything_and_asks_nobody(make, tmp_path):
    text = written(make(tmp_path))
    page = Page(text)
    wanted = [name for name in SECTIONS if name != "calibration" or make is not masks]
    assert [attributes["id"] for attributes in page.all("section")] == wanted
    assert [attributes["href"] for attributes in page.all("a")] == [f"#{name}" for name in wanted]
    assert not {"script", "link", "iframe", "object", "image", "use", "base"} & {tag for tag, _ in page.tags}
    sources = [attributes["src"] for attributes in page.all("img")]
    assert sources
    assert all(source.startswith("data:image/webp;base64,") for source in sources)
    assert not re.search(r"""(src|href|srcset|action|data)\s*=\s*["']?\s*(https?:)?//""", text)
    assert not re.search(r"url\(|@import", text)
    assert len(page.all("svg")) == (2 if make is masks else 3)
    assert "kept and frozen" in page.text.lower()
    assert command_line(load_recipe(tmp_path / "recipe.yaml")) in page.text
    assert "3.5 seconds on cpu in fp32, seed 3" in page.text
    assert len(text) < 200_000


@pytest.mark.parametrize("make", [labels, several, masks])
def test_names_are_text_and_nothing_else(make, tmp_path):
    text = written(make(tmp_path))
    assert "<b>red" not in text
    assert "<i>0" not in text
    assert "&lt;b&gt;red&lt;/b&gt;" in text
    page = Page(text)
    for name in CLASSES:
        assert name in page.text
    assert make is masks or "<i>00.png" in page.text
    assert {attributes.get("alt") for attributes in page.all("img")} <= {
        f"val/{file}{caption}"
        for k in range(30)
        for file, caption in (
            (f"<i>{k:02d}.png", ""),
            (f"images/{k:02d}.png", ", truth"),
            (f"images/{k:02d}.png", ", answer"),
        )
    }


def test_the_worst_labels_are_those_of_the_highest_loss(tmp_path):
    version = labels(tmp_path)
    found = find_mistakes(version.val.images, version.manifest.output)
    assert [one.index for one in found] == [5, 4, 3, 2, 1, 0]
    temperature = version.manifest.output.temperature
    assert temperature != 1
    logits = np.array(grey(5 % 3, 35)) * SCALE / temperature
    shares = np.exp(logits) / np.exp(logits).sum()
    assert found[0].badness[0] == pytest.approx(-np.log(shares[0]), rel=1e-3)
    assert found[0].lines == [
        ("truth", f"{CLASSES[0]} {shares[0]:.3f}"),
        ("answer", f"{CLASSES[2]} {shares[2]:.3f}"),
    ]
    page = Page(written(version))
    files = [attributes["alt"] for attributes in page.all("img")]
    assert files == [f"val/<i>0{k}.png" for k in (5, 4, 3, 2, 1, 0)]
    assert all(attributes["class"] == "pixels" for attributes in page.all("img"))
    assert "6 of 30 images of val are answered wrongly" in page.text


def test_of_many_mistakes_twenty_are_shown(tmp_path):
    page = Page(written(labels(tmp_path, mistaken=25)))
    assert len(page.all("img")) == 20
    assert "25 of 30 images of val are answered wrongly ; these are the 20 worst" in page.text.replace(
        "wrongly;", "wrongly ;"
    )


def test_the_worst_of_several_labels(tmp_path):
    version = several(tmp_path)
    found = find_mistakes(version.val.images, version.manifest.output)
    # Without a label all three answers are wrong, and the more so the stronger the colour; with
    # two only blue is wrong, always alike, and green the less sure the weaker.
    assert [one.index for one in found] == [9, 6, 3, 0, 1, 4, 7, 10]
    assert found[0].lines[0] == ("truth", "none of the labels")
    assert [what for what, _ in found[0].lines] == ["truth", "wrong"]
    assert all(name in found[0].lines[1][1] for name in CLASSES)


def test_the_worst_masks_are_those_of_the_lowest_iou(tmp_path):
    version = masks(tmp_path)
    found = find_mistakes(version.val.images, version.manifest.output)
    # The first row counts nowhere. Of 23 rows, 6k - 1 of the left half are blue in truth and green in answer.
    assert [one.index for one in found] == [3, 2, 1]
    for one in found:
        moved = 20 * (6 * one.index - 1)
        green, blue = (460 - moved) / 460, 460 / (460 + moved)
        assert -one.badness[0] == pytest.approx((green + blue) / 2)
        assert ("wrong pixels", f"{moved:,}") in one.lines
    page = Page(written(version))
    assert [attributes["alt"] for attributes in page.all("img")] == [
        f"val/images/0{k}.png, {what}" for k in (3, 2, 1) for what in ("truth", "answer")
    ]


@pytest.mark.parametrize("make", ["labels", "masks"])
def test_a_model_without_mistakes_has_a_report_too(make, tmp_path):
    if make == "labels":
        version = labels(tmp_path, mistaken=0)
    else:
        image = np.zeros((8, 8, 3), np.uint8)
        image[..., 2] = 9
        version = make_masks(tmp_path, [image] * 2, [np.full((8, 8), 2, np.uint8)] * 2)
    page = Page(written(version))
    assert "There is none: every answer" in page.text
    assert page.all("img") == []
    assert "1.000–1.000" in page.text


def test_one_class_and_one_image_will_do(tmp_path):
    page = Page(written(make_labels(tmp_path, [grey(0, 9)], [0])))
    assert "too few images, 1 of 10" in page.text
    page = Page(
        written(make_masks(tmp_path / "m", [np.zeros((3, 2, 3), np.uint8)], [np.full((3, 2), 255, np.uint8)]))
    )
    assert "There is none" in page.text


def test_a_version_of_other_data_says_so(tmp_path):
    version = labels(tmp_path)
    assert "Not the data of the training" not in Page(written(version)).text
    other = replace(
        version, manifest=replace(version.manifest, data={"fingerprint": "0" * 64}, parent="tiny@1")
    )
    page = Page(written(other))
    assert "Not the data of the training" in page.text
    assert "Made from tiny@1" in page.text


def test_pages_of_large_pictures_stay_small(tmp_path):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (330, 440, 3)).astype(np.uint8) for _ in range(21)]
    version = make_masks(tmp_path, images, [rng.integers(0, 3, (330, 440)).astype(np.uint8) for _ in images])
    text = written(version)
    assert text.count("data:image/webp") == 40
    assert len(text) < 4_000_000


def test_a_stop_is_heard(tmp_path, monkeypatch):
    version = labels(tmp_path)
    interrupt._requested.set()
    try:
        with pytest.raises(KeyboardInterrupt):
            write_report(version, Reporter())
    finally:
        interrupt._requested.clear()
    assert not (version.folder / REPORT_FILE).exists()
    assert not issubclass(KeyboardInterrupt, SurgeryError)


def test_a_range_test_is_drawn_where_there_was_one(tmp_path):
    for name, tested in (("with", True), ("without", False)):
        version = labels(tmp_path / name)
        if tested:
            RangeTest((1e-6, 1e-3, 1.0), (1.0, 0.4, 2.0), 1e-3).save(version.folder / RATES_FILE)
        write_report(version, Reporter())
        page = Page((version.folder / REPORT_FILE).read_text("utf-8"))
        charts = [each["aria-label"] for each in page.all("svg")]
        assert ("Loss by learning rate" in charts) == tested
        assert ("the line marks 0.001" in page.text) == tested


def test_a_precision_says_what_it_lost_and_what_runs(tmp_path: Path) -> None:
    version = labels(tmp_path)
    facts = {
        "metric": "accuracy", "score": 0.7, "fp32": 0.8, "loss_points": 10.0, "tolerance_points": 0.5,
        "passed": False, "answers_equal": 0.875, "max_difference": 0.25, "largest_logit": 4.0,
        "left_in_float": ["stage1.conv", "stage2.conv"],
    }  # fmt: skip
    (tmp_path / "model.int8.onnx").write_bytes((tmp_path / "model.onnx").read_bytes())
    manifest = replace(
        version.manifest,
        precision="int8",
        graphs={"fp32": "model.onnx", "int8": "model.int8.onnx"},
        serve={"cpu": "model.int8.onnx", "cuda": "model.onnx"},
        parity=version.manifest.parity | {"precisions": {"int8": facts}},
        speed={"cpu": {"milliseconds": {"fp32": 40.0, "int8": 15.5}, "runs": 15}},
    )
    write_report(replace(version, manifest=manifest), Reporter())
    text = Page((tmp_path / REPORT_FILE).read_text("utf-8")).text
    for said in (
        "In int8 the accuracy on val is 0.700, in fp32 0.800: 10 percentage points are lost, 0.5 may be",
        "this version is not to be promoted",
        "stage1.conv, stage2.conv",
        "On cpu it serves int8",
        "40 ms in fp32, 15.5 ms in int8",
    ):
        assert said in text
