"""How unlike the training images an image is: distances and probabilities with known answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kstest

from surgery.artifact.errors import StoreError
from surgery.artifact.novelty import (
    NOVELTY_FILE,
    Gauge,
    Gaussian,
    HeldOut,
    read_gauge,
    read_novelty,
    write_novelty,
)


def standard(m: int = 99) -> Gauge:
    """Return a gauge by which `at(x)` has the distance x, and the distances known are 1 to m."""
    axes = np.array([[0, 1, 0, 0]], np.float32)
    gaussian = Gaussian(np.zeros(4, np.float32), axes, np.array([100.0**2]), 0.0)
    return Gauge(gaussian, HeldOut(np.arange(1.0, m + 1), np.ones((2, 4), np.float32)))


def at(distance: float, length: float = 7.0) -> np.ndarray:
    sine = distance / 100
    return np.array([np.sqrt(1 - sine**2), sine, 0, 0], np.float32) * length


def test_the_compact_form_is_the_dense_mahalanobis_distance_of_directions() -> None:
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(9, 9)))[0][:3]
    variances, rest = np.array([9.0, 4.0, 0.25]), 0.5
    dense = rest * (np.eye(9) - axes.T @ axes) + axes.T @ np.diag(variances) @ axes
    mean, points = rng.normal(size=9), rng.normal(size=(20, 9)) * 3
    gaussian = Gaussian(mean.astype(np.float32), axes.astype(np.float32), 1 / variances, 1 / rest)
    moved = points / np.linalg.norm(points, axis=1, keepdims=True) - mean
    wanted = [np.sqrt(row @ np.linalg.inv(dense) @ row) for row in moved]
    assert gaussian.distances(points.astype(np.float32)) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize(("distance", "novelty"), [(0.5, 1.0), (1.5, 0.99), (98.5, 0.02), (99.5, 0.01)])
@pytest.mark.parametrize("length", [1e-30, 1.0, 1e30])
def test_novelty_counts_the_images_held_out_that_lie_as_far(
    distance: float, novelty: float, length: float
) -> None:
    assert standard().novelty(at(distance, length)) == novelty


def test_an_image_held_out_is_as_far_as_itself() -> None:
    gauge = standard()
    known = np.sort([gauge.gaussian.distances(at(k)[None])[0] for k in range(1, 5)])
    own = Gauge(gauge.gaussian, HeldOut(known, gauge.held_out.reference))
    assert [own.novelty(at(k)) for k in range(1, 5)] == [1.0, 0.8, 0.6, 0.4]


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_an_embedding_without_bounds_is_as_novel_as_can_be(number: float) -> None:
    assert standard(4).novelty(np.array([number, 1, 0, 0], np.float32)) == 0.2


def test_an_embedding_of_nothing_has_a_novelty() -> None:
    assert 0.01 <= standard().novelty(np.zeros(4, np.float32)) <= 1


def test_novelty_is_uniform_for_images_like_those_held_out_whatever_their_distribution() -> None:
    rng = np.random.default_rng(1)
    known, new = (np.exp(rng.normal(size=(2000, 4))).astype(np.float32) for _ in range(2))
    gaussian = standard().gaussian
    gauge = Gauge(gaussian, HeldOut(np.sort(gaussian.distances(known)), known[:2]))
    novelties = [gauge.novelty(row) for row in new]
    assert kstest(novelties, "uniform").pvalue > 0.001
    assert np.mean(np.array(novelties) <= 0.05) == pytest.approx(0.05, abs=0.02)


def test_embeddings_of_another_length_are_refused() -> None:
    with pytest.raises(StoreError, match=r"\(3,\).*\(4,\)"):
        standard().novelty(np.zeros(3, np.float32))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    gauge = standard()
    other = HeldOut(np.array([1.0, np.inf]), np.zeros((1, 4), np.float32))
    write_novelty(tmp_path, gauge.gaussian, {"fp32": gauge.held_out, "int8": other})
    found = read_gauge(tmp_path, "fp32")
    assert found is not None
    assert found.novelty(at(49.5)) == gauge.novelty(at(49.5)) == 0.51
    assert np.array_equal(found.held_out.reference, gauge.held_out.reference)
    int8 = read_gauge(tmp_path, "int8")
    assert int8 is not None
    assert int8.held_out.calibration.tolist() == [1.0, np.inf]
    assert read_gauge(tmp_path, "fp16") is None


def test_a_version_without_the_file_has_no_gauge(tmp_path: Path) -> None:
    assert read_novelty(tmp_path) is None
    assert read_gauge(tmp_path, "fp32") is None


def test_damage_is_an_error_that_names_the_file_or_changes_nothing(tmp_path: Path) -> None:
    gauge = standard()
    write_novelty(tmp_path, gauge.gaussian, {"fp32": gauge.held_out})
    path = tmp_path / NOVELTY_FILE
    whole, rng = path.read_bytes(), np.random.default_rng(2)
    messages = []
    for _ in range(300):
        damaged = bytearray(whole)
        for at in rng.integers(0, len(whole), 3):
            damaged[at] = rng.integers(256)
        path.write_bytes(damaged[: rng.integers(1, len(whole))] if rng.random() < 0.3 else damaged)
        try:
            found = read_gauge(tmp_path, "fp32")
        except StoreError as error:
            messages.append(error.message)
        else:
            assert found is None or np.array_equal(found.held_out.calibration, gauge.held_out.calibration)
    assert len(messages) > 200
    assert all(NOVELTY_FILE in message for message in messages)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mean", np.zeros(3, np.float32)),
        ("mean", np.full(4, np.nan, np.float32)),
        ("axes", np.zeros((2, 4), np.float32)),
        ("weights", np.array([1.0, 1.0])),
        ("remainder", np.float64(-1)),
        ("remainder", np.float64(np.inf)),
        ("calibration.fp32", np.array([2.0, 1.0])),
        ("calibration.fp32", np.array([1.0, np.nan])),
        ("calibration.fp32", np.array([-1.0, 1.0])),
        ("calibration.fp32", np.zeros(0)),
        ("reference.fp32", np.zeros((2, 3), np.float32)),
        ("reference.fp32", np.array(["a"])),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path: Path, name: str, value: np.ndarray) -> None:
    gauge = standard()
    write_novelty(tmp_path, gauge.gaussian, {"fp32": gauge.held_out})
    with np.load(tmp_path / NOVELTY_FILE) as held:
        arrays = dict(held)
    np.savez(tmp_path / NOVELTY_FILE, **(arrays | {name: value}))
    with pytest.raises(StoreError, match=NOVELTY_FILE):
        read_novelty(tmp_path)


class Touch:
    """What makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / NOVELTY_FILE, mean=np.array([Touch(tmp_path / "touched")], dtype=object))
    with pytest.raises(StoreError, match="damaged"):
        read_novelty(tmp_path)
    assert not (tmp_path / "touched").exists()


def test_of_two_domains_an_image_is_as_usual_as_in_the_one_that_suits_it() -> None:
    rng = np.random.default_rng(2)
    near, far = rng.uniform(0, 10, 400), np.linspace(40, 50, 62)[1:-1]
    distances, marks = np.concatenate([near, far]), np.arange(460) >= 400
    order = np.argsort(distances)
    rows = np.ones((60, 4), np.float32)
    held = HeldOut(distances[order], rows, marks[order], np.arange(60) >= 30)
    gauge = Gauge(standard().gaussian, held)
    for low, high in ((0, 10), (40, 50)):
        novelties = [gauge.novelty(at(distance)) for distance in rng.uniform(low, high, 400)]
        assert np.mean(np.array(novelties) <= 0.05) <= 0.08
    assert gauge.novelty(at(60)) == 1 / 61


def test_a_domain_of_a_few_images_makes_nothing_usual() -> None:
    marks = np.arange(104) >= 100
    held = HeldOut(np.arange(104.0), np.ones((8, 4), np.float32), marks, np.arange(8) >= 4)
    assert len(held.usual) == 2  # all images, and those of the source
    assert Gauge(standard().gaussian, held).novelty(at(99.5)) == pytest.approx(5 / 105)
