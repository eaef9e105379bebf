"""Statistics of training embeddings: the right covariance, of the right images, for every graph of a version."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.covariance import LedoitWolf
from tiny_graphs import store_tiny

from surgery.artifact.image import read_image
from surgery.artifact.novelty import (
    LEAST_USUAL,
    NOVELTY_FILE,
    Gaussian,
    read_gauge,
    read_novelty,
    to_directions,
)
from surgery.artifact.session import answer_image, open_session
from surgery.deliver import statistics
from surgery.deliver.precision import export_precision
from surgery.deliver.scoring import score_graph
from surgery.deliver.statistics import (
    add_precision,
    add_statistics,
    fit_gaussian,
    hold_out,
    is_held_out,
    share,
)
from surgery.train.reporting import Reporter

QUIET = Reporter(quiet=True)


@pytest.mark.parametrize(("n", "d"), [(40, 6), (12, 30)])
def test_the_gaussian_is_that_of_ledoit_and_wolf(n, d):
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + 5).astype(np.float32)
    new = rng.normal(5, 3, (9, d)).astype(np.float32)
    known = LedoitWolf().fit(to_directions(rows).astype(float))
    gaussian = fit_gaussian(rows)
    assert len(gaussian.axes) == min(n - 1, d)
    for points in (rows, new):
        wanted = np.sqrt(known.mahalanobis(to_directions(points)))
        assert gaussian.distances(points) == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize("rows", [np.ones((5, 3)), np.array([[1.0, 0, 0], [2, 0, 0], [4, 0, 0]])])
def test_embeddings_without_spread_have_distances_all_the_same(rows):
    gaussian = fit_gaussian(rows.astype(np.float32))
    at, beside = gaussian.distances(np.array([rows[0] * 3, rows[0] + (0, 0, 9)], np.float32))
    assert at == pytest.approx(0, abs=0.05)
    assert 1 < beside < np.inf


def test_of_many_images_held_out_some_evenly_spread_are_kept(monkeypatch):
    monkeypatch.setattr(statistics, "CALIBRATED_IMAGES", 5)
    monkeypatch.setattr(statistics, "REFERENCE_IMAGES", 2)
    sines = np.arange(9) / 10
    rows = np.stack([np.sqrt(1 - sines**2), sines], 1).astype(np.float32)
    gaussian = Gaussian(np.zeros(2, np.float32), np.array([[0, 1]], np.float32), np.ones(1), 0.0)
    held = hold_out(gaussian, rows)
    assert np.array_equal(held.reference, rows[[0, 8]])
    assert held.calibration_target is None
    assert held.calibration == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A stored version, its session, its val scored, and images of another kind."""
    folder = tmp_path_factory.mktemp("source")
    _, stored, table, targets = store_tiny(folder, "classify")
    session = open_session(stored.graph(), "cpu")
    val = score_graph(session, stored.manifest, table.of("val"), targets, lambda done, images: None)
    (folder / "target").mkdir()
    for level in range(40):
        pixels = np.full((8, 8, 3), 200 + level, np.uint8)
        Image.fromarray(pixels).save(folder / "target" / f"{level:02}.png")
    return stored, session, table, val, sorted((folder / "target").iterdir())


def sides(images):
    held = [path for path in images if is_held_out(path)]
    return [path for path in images if path not in held], held


def test_an_adapted_version_knows_both_domains(source, tmp_path):
    stored, session, table, val, images = source
    add_statistics(tmp_path, session, stored.manifest, table, val, QUIET, images)
    gauge = read_gauge(tmp_path, "fp32")
    fitted, held = sides(images)
    assert len(held) >= LEAST_USUAL
    train = [item.image for item in table.of("train")]
    rows = [answer_image(session, stored.manifest, read_image(path)).embedding for path in (*train, *fitted)]
    assert gauge.gaussian.mean == pytest.approx(to_directions(np.stack(rows)).mean(0), rel=1e-4)
    assert len(gauge.held_out.calibration) == len(val.images) + len(held)
    assert gauge.held_out.calibration_target.sum() == len(held)
    add_statistics(tmp_path / "..", session, stored.manifest, table, val, QUIET, [])
    alone = read_gauge(tmp_path / "..", "fp32")
    (tmp_path / ".." / NOVELTY_FILE).unlink()
    image = answer_image(session, stored.manifest, read_image(held[0])).embedding
    assert alone.novelty(image) == 1 / (len(val.images) + 1)
    assert gauge.novelty(image) > 0.05


def test_a_few_images_of_the_target_take_nothing_from_the_source(source, tmp_path, capsys):
    stored, session, table, val, images = source
    few = images[:6]
    add_statistics(tmp_path, session, stored.manifest, table, val, Reporter(), few)
    gauge = read_gauge(tmp_path, "fp32")
    fitted, held = sides(few)
    train = [item.image for item in table.of("train")]
    rows = [answer_image(session, stored.manifest, read_image(path)).embedding for path in (*train, *fitted)]
    assert gauge.gaussian.mean == pytest.approx(to_directions(np.stack(rows)).mean(0), rel=1e-4)
    assert len(gauge.held_out.calibration) == len(val.images) + len(held)
    assert f"{len(held)} of the 6 target images could be held out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("ours", "theirs", "wanted"),
    [
        (800, 6, (506, 6)),
        (100, 400, (100, 400)),
        (800, 900, (256, 256)),
        (10, 5, (10, 5)),
        (700, 0, (512, 0)),
    ],
)
def test_what_one_domain_lacks_the_other_makes_up_for(ours, theirs, wanted):
    taken = share(ours, theirs, 512)
    assert tuple(map(len, taken)) == wanted
    assert all(
        len(set(each)) == len(each) and max(each, default=-1) < n
        for each, n in zip(taken, (ours, theirs), strict=True)
    )


def test_a_copy_of_a_target_image_stands_on_its_side(source, tmp_path):
    for path in source[-1][:10]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
        assert is_held_out(tmp_path / path.name) == is_held_out(path)


def adapted_to(manifest, *paths: Path):
    return dataclasses.replace(manifest, provenance={"adaptation": {"target": {"path": [*map(str, paths)]}}})


def test_a_later_graph_of_an_adapted_version_is_calibrated_on_both_domains_or_not_at_all(
    source, tmp_path, capsys
):
    stored, session, table, val, images = source
    manifest = adapted_to(stored.manifest, images[0].parent)
    add_statistics(tmp_path, session, manifest, table, val, QUIET)
    add_precision(tmp_path, (session, session), manifest, table, (val, val), "int8", QUIET)
    _, held_out = read_novelty(tmp_path)
    assert held_out["int8"].calibration.tolist() == held_out["fp32"].calibration.tolist()
    gone = adapted_to(stored.manifest, tmp_path / "gone")
    add_precision(tmp_path, (session, session), gone, table, (val, val), "int8", Reporter())
    assert set(read_novelty(tmp_path)[1]) == {"fp32"}
    assert "are not there" in capsys.readouterr().err
    (tmp_path / NOVELTY_FILE).unlink()
    add_statistics(tmp_path, session, gone, table, val, Reporter())
    assert read_novelty(tmp_path) is None
    assert "are not there" in capsys.readouterr().err


def test_without_images_there_are_none_and_it_is_said(source, tmp_path, capsys):
    stored, session, table, val, _ = source
    empty = dataclasses.replace(table, items=tuple(table.of("val")))
    add_statistics(tmp_path, session, stored.manifest, empty, val, Reporter())
    assert read_novelty(tmp_path) is None
    assert "too few images" in capsys.readouterr().err


def test_another_export_keeps_them_and_another_precision_has_its_own(tmp_path):
    store, first, table, targets = store_tiny(tmp_path, "classify")
    assert read_novelty(first.path) is None  # of an early program
    int8 = export_precision(store, first, "int8", table, targets, 100, QUIET)
    gaussian, held_out = read_novelty(int8.path)
    assert set(held_out) == {"fp32", "int8"}
    assert len(held_out["int8"].calibration) == len(table.of("val"))
    one, other = (open_session(int8.path / file, "cpu") for file in int8.manifest.graphs.values())
    image = read_image(table.of("val")[0].image)
    for session, precision in ((one, "fp32"), (other, "int8")):
        embedding = answer_image(session, int8.manifest, image).embedding
        assert held_out[precision].reference[0] == pytest.approx(embedding)
    assert held_out["fp32"].calibration.tolist() != held_out["int8"].calibration.tolist()
    again = export_precision(store, int8, "int8", table, targets, 100, QUIET)
    assert np.array_equal(read_novelty(again.path)[0].mean, gaussian.mean)
