"""The samples: the same seed draws the same bytes, masks are exact, foreign files are safe."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from surgery.artifact.errors import ConfigError, DataError
from surgery.data.check import check_table
from surgery.data.readers import read_table
from surgery.data.samples.canvas import CAR, CLASSES, CLUTTER, Camera, Canvas
from surgery.data.samples.cars import write_cars
from surgery.data.samples.digits import write_digits
from surgery.data.samples.street import draw_street
from surgery.data.targets import resolve_target


def content(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(str(p.relative_to(folder)), hashlib.sha256(p.read_bytes()).hexdigest()) for p in files]


def test_a_street_repeats_and_another_seed_is_another_street():
    image, mask = draw_street(3, size=(128, 96))
    again, same = draw_street(3, size=(128, 96))
    assert np.array_equal(image, again)
    assert np.array_equal(mask, same)
    assert image.shape == (96, 128, 3)
    assert mask.shape == (96, 128)
    other, _ = draw_street(4, size=(128, 96))
    assert not np.array_equal(image, other)


def test_night_is_the_same_street_in_the_dark():
    shares = []
    for seed in range(8):
        day, mask = draw_street(seed, "day", (128, 96))
        night, same = draw_street(seed, "night", (128, 96))
        assert np.array_equal(mask, same)
        shares.append(night.mean() / day.mean())
    assert max(shares) < 1
    assert np.mean(shares) < 0.55


def test_streets_hold_cars_and_what_looks_like_cars():
    masks = [draw_street((0, seed), size=(128, 96))[1] for seed in range(30)]
    share = np.mean([np.mean(mask == CAR) for mask in masks])
    assert 0.04 < share < 0.25
    assert sum((mask == CAR).any() for mask in masks) > 22
    assert sum((mask == CLUTTER).any() for mask in masks) > 20
    assert {int(v) for mask in masks for v in np.unique(mask)} == set(range(len(CLASSES)))


def test_colour_alone_does_not_tell_a_car():
    # The nearest mean colour in 16 bins a channel, learnt and asked on the same pixels, stays poor.
    pixels, labels = [], []
    for seed in range(12):
        image, mask = draw_street((7, seed), size=(128, 96))
        pixels.append(image.reshape(-1, 3) // 16)
        labels.append(mask.ravel() == CAR)
    bins = np.concatenate(pixels).astype(int) @ np.asarray([256, 16, 1])
    truth = np.concatenate(labels)
    cars = np.bincount(bins, truth, 4096)
    said = (cars > 0.5 * np.bincount(bins, minlength=4096))[bins]
    assert (said & truth).sum() / (said | truth).sum() < 0.45


def test_what_is_drawn_covers_picture_mask_and_light_alike():
    camera = Camera(80, 60, 60.0, 30.0, 40.0, 1.5, 0.0)
    canvas = Canvas(camera, (200, 200, 200), 1e9)
    near = [(-1, 0, 5), (-1, 2, 5), (1, 2, 5), (1, 0, 5)]
    canvas.face(near, (10, 20, 30), CAR, glow=(255, 0, 0))
    drawn = canvas.mask == CAR
    assert np.array_equal(drawn, (canvas.image == (10, 20, 30)).all(2))
    assert np.array_equal(drawn, canvas.glow[..., 0] == 255)
    canvas.face([(0, 0, 4), (0, 2, 4), (1, 2, 4), (1, 0, 4)], (90, 90, 90), CLUTTER)
    assert not ((canvas.mask == CLUTTER) & (canvas.glow[..., 0] > 0)).any()


def test_a_point_is_drawn_where_perspective_puts_it():
    camera = Camera(80, 60, 60.0, 30.0, 40.0, 1.5, 0.0)
    assert camera.project([(1.0, 0.0, 6.0)]).tolist() == [[50.0, 45.0]]
    first, x, z = camera.ground()
    row = 45 - first
    assert z[row, 0] == pytest.approx(60 * 1.5 / 15.5)
    assert x[row, 50] == pytest.approx((50.5 - 40) * z[row, 0] / 60)


def test_cars_are_written_whole_and_alike(tmp_path):
    first = write_cars(tmp_path / "a", 3, 2, size=(96, 64), workers=2)
    again = write_cars(tmp_path / "deep" / "b", 3, 2, size=(96, 64), workers=1)
    assert content(first) == content(again)
    table = read_table(first)
    assert (table.task, table.classes, len(table.of("train")), len(table.of("val"))) == (
        "segment",
        CLASSES,
        3,
        2,
    )
    report = check_table(table, resolve_target(table, (), ("unlabelled",)))
    assert not report.problems
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "deep", "room"]


def test_day_and_night_samples_share_no_street(tmp_path):
    day = write_cars(tmp_path / "day", 2, 1, "day", size=(96, 64))
    night = write_cars(tmp_path / "night", 2, 1, "night", size=(96, 64))
    masks = {path.read_bytes() for path in [*day.rglob("masks/*"), *night.rglob("masks/*")]}
    assert len(masks) == 6


def test_a_sample_is_made_anew_but_nothing_else_is_touched(tmp_path):
    out = write_cars(tmp_path / "out", 1, 0, size=(96, 64))
    before = content(out)
    write_cars(out, 2, 0, size=(96, 64))
    assert len(list(out.rglob("images/*"))) == 2
    assert write_cars(out, 1, 0, size=(96, 64)) == out
    assert content(out) == before
    with pytest.raises(DataError, match="no digits sample"):
        write_digits(out)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("precious")
    with pytest.raises(DataError, match="no cars sample"):
        write_cars(mine, 1, 0)
    assert (mine / "thesis.txt").read_text() == "precious"


def test_a_sample_with_files_of_somebody_else_is_not_touched(tmp_path):
    out = write_cars(tmp_path / "out", 1, 0, size=(96, 64))
    for name in ("train/images/mine.jpg", "notes.txt"):
        (out / name).write_text("precious")
        before = content(out)
        with pytest.raises(DataError, match=f"such as {name}"):
            write_cars(out, 1, 0, size=(96, 64))
        assert content(out) == before
        (out / name).unlink()
    (out / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match="such as link"):
        write_cars(out, 1, 0, size=(96, 64))


def test_files_put_there_while_a_sample_is_drawn_are_kept(tmp_path):
    out = write_cars(tmp_path / "out", 1, 0, size=(96, 64))
    with pytest.raises(DataError, match="such as notes"):
        write_cars(out, 1, 0, size=(96, 64), progress=lambda *_: (out / "notes.txt").write_text("precious"))
    assert (out / "notes.txt").exists()
    assert not list(tmp_path.glob(".out-*"))


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("surgery.data.samples.cars.write_image", fail)
    with pytest.raises(DataError, match="No space left"):
        write_cars(tmp_path / "new" / "out", 2, 0, size=(96, 64))
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize(
    ("options", "word"),
    [({"domain": "dusk"}, "dusk"), ({"size": (20, 20)}, "20x20"), ({"n_train": 0}, "n_train 0")],
)
def test_impossible_wishes_are_refused(tmp_path, options, word):
    with pytest.raises(ConfigError, match=word):
        write_cars(tmp_path / "out", **{"n_train": 1, "n_val": 0} | options)
    assert not (tmp_path / "out").exists()


def test_digits_are_scikit_learns(tmp_path):
    table = read_table(write_digits(tmp_path / "digits"))
    assert table.classes == tuple("0123456789")
    assert len(table.items) == 1797
    assert (len(table.of("train")), len(table.of("val"))) == (1438, 359)
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    with Image.open(tmp_path / "digits" / str(digits.target[5]) / "00005.png") as image:
        assert np.array_equal(np.asarray(image), np.rint(digits.images[5] * 255 / 16))
