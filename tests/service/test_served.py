"""A version is opened through its optimised form, which is never trusted further than the graph itself."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import SCALE, add_classifier

from service import served
from service.pace import Pace
from service.served import Engine, load_version
from surgery.artifact.graph import GraphCache
from surgery.artifact.store import Store

IMAGE = np.full((24, 32, 3), 100, np.uint8)


@pytest.fixture
def cache(tmp_path: Path) -> GraphCache:
    return GraphCache(tmp_path / "graphs", 10.0)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


def test_an_optimised_form_that_answers_otherwise_is_forgotten(store: Store, cache: GraphCache) -> None:
    good = add_classifier(store, asked=(IMAGE, np.array([1, 1, 1], np.float32)))
    other = add_classifier(store, scale=-SCALE)
    assert cache.open(other.graph(), other.sha256("cpu"), 1) is not None
    cache._folder(other.sha256("cpu")).rename(cache._folder(good.sha256("cpu")))
    model = load_version(good, Engine("cpu", cache=cache))
    np.testing.assert_allclose(model.session.run(IMAGE[None])[0], [[1, 1, 1]], rtol=1e-5)
    assert not cache.holds(good.sha256("cpu"))


def test_an_optimised_form_that_cannot_be_forgotten_gets_no_lanes(
    store: Store, cache: GraphCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = add_classifier(store, asked=(IMAGE, np.array([1, 1, 1], np.float32)))
    other = add_classifier(store, scale=-SCALE)
    assert cache.open(other.graph(), other.sha256("cpu"), 1) is not None
    cache._folder(other.sha256("cpu")).rename(cache._folder(good.sha256("cpu")))
    monkeypatch.setattr(GraphCache, "drop", lambda cache, sha256: None)
    monkeypatch.setattr(served, "learn_pace", lambda *given: Pace(1, 1, given[3]))
    model = load_version(good, Engine("cpu", threads=2, lanes=2, cache=cache))
    assert (model.pace.lanes, model.narrow) == (1, None)


def test_lanes_answer_as_all_cores_do(
    store: Store, cache: GraphCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = add_classifier(store)

    def learn(session: Any, image: Any, most: int, lanes: int, narrow: Any, single: bool) -> Pace:
        return Pace(1, 1, lanes)

    monkeypatch.setattr(served, "learn_pace", learn)
    model = load_version(stored, Engine("cpu", threads=3, lanes=2, cache=cache))
    assert model.pace.lanes == 2
    assert model.narrow is not None
    assert model.narrow.session() is model.narrow.session()
    np.testing.assert_array_equal(
        model.narrow.session().run(IMAGE[None])[0], model.session.run(IMAGE[None])[0]
    )
    assert load_version(stored, Engine("cpu", threads=1, lanes=2, cache=cache)).pace.lanes == 1, "one core"


def test_lanes_need_neither_the_store_nor_the_cache_once_loaded(
    store: Store, cache: GraphCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "learn_pace", lambda *given: Pace(1, 1, 2))
    models = []
    for number in range(2):
        stored = add_classifier(store, f"model{number}")
        models.append((stored, load_version(stored, Engine("cpu", threads=2, lanes=2, cache=cache))))
    shutil.rmtree(models[0][0].path)
    shutil.rmtree(models[1][0].path)
    cache.drop(models[1][0].sha256("cpu"))
    for _, model in models:
        assert model.narrow is not None
        np.testing.assert_allclose(model.narrow.session().run(IMAGE[None])[0], [[1, 1, 1]], rtol=1e-5)


def test_without_a_cache_there_are_no_lanes(store: Store, tmp_path: Path) -> None:
    stored = add_classifier(store)
    (tmp_path / "file").write_text("no folder")
    for cache in (None, GraphCache(tmp_path / "file" / "graphs", 10.0)):
        model = load_version(stored, Engine("cpu", threads=2, lanes=2, cache=cache))
        assert (model.pace.lanes, model.narrow) == (1, None)
