"""The augmentation in the feed: another pipeline gets another cache, and views follow from their number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from surgery.artifact.image import read_image
from surgery.artifact.manifest import InputSpec
from surgery.config import CUSTOM
from surgery.data.readers import read_table
from surgery.data.targets import resolve_target
from surgery.data.transforms import make_view, view_seed
from surgery.nets.assemble import Model, build_model
from surgery.nets.weights import LoadedWeights
from surgery.train.feed import Feed

SPEC = InputSpec("crop", 32, 32)


@pytest.fixture
def model() -> Model:
    return build_model("test_efficientnet", "avg", "classify", 2, None, 0.0, LoadedWeights(None, {}), 0)


def open_feed(model: Model, data: Path, augment: str, pipeline=None, cut: int = 2, views: int = 2) -> Feed:
    table = read_table(data)
    return Feed(
        model, cut, table, SPEC, resolve_target(table), augment, views, 7, torch.device("cpu"), 2, 1.0,
        pipeline=pipeline,
    )  # fmt: skip


def cache_of(*given, **named) -> str:
    feed = open_feed(*given, **named)
    feed.close()
    assert feed.cache is not None
    return feed.cache.folder.name


def test_a_pipeline_has_a_cache_of_its_own(model, stripes):
    pipelines = [None, None, ({"HorizontalFlip": {"p": 0.5}},), ({"HorizontalFlip": {"p": 0.6}},)]
    names = ["light", "medium", CUSTOM, CUSTOM]
    found = [cache_of(model, stripes, *each) for each in zip(names, pipelines, strict=True)]
    assert len(set(found)) == 4
    assert cache_of(model, stripes, CUSTOM, ({"HorizontalFlip": {"p": 0.6}},)) == found[3]


def test_a_preset_that_is_changed_gets_another_cache(model, stripes, monkeypatch):
    from surgery.data import presets

    before = {name: cache_of(model, stripes, name) for name in ("light", "heavy")}
    for name in before:
        monkeypatch.setitem(presets.LABELS, name, [*presets.LABELS[name], {"ToGray": {"p": 0.5}}])
    assert cache_of(model, stripes, "heavy") != before["heavy"]
    assert cache_of(model, stripes, "light") == before["light"]  # is known by its name, and never changes


@pytest.mark.parametrize("pipeline", [None, ({"VerticalFlip": {"p": 0.5}}, {"Blur": {"p": 0.5}})])
def test_a_view_follows_from_image_number_and_seed(model, stripes, pipeline):
    augment = "heavy" if pipeline is None else CUSTOM
    feed = open_feed(model, stripes, augment, pipeline, cut=0, views=3)
    view = make_view(SPEC, augment, pipeline)
    for batch in feed.epoch(1, 8):
        for item, seen in zip(batch.items, batch.inputs["images"].numpy(), strict=True):
            digest = feed.table.content_hash(item)
            image = read_image(item.image)
            views = [view(image, None, view_seed(7, digest, k), plain=k == 0)[0] for k in range(3)]
            number = (1 + int(digest[:8], 16)) % 3
            assert np.array_equal(seen, views[number])
