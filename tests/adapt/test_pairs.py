"""Pairs of batches: every image of the target in its turn, and the same pairs after a stop."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import pytest
import torch
from tiny_domains import make_domains

from surgery.adapt.methods import METHODS
from surgery.adapt.pairs import PairedFeed
from surgery.config import AdaptConfig
from surgery.recipes.domains import open_pairs
from surgery.train.device import make_accelerator

BATCH = 4


@pytest.fixture
def feed(tmp_path: Path) -> PairedFeed:
    """16 images of the source and 10 of the target: 4 steps an epoch, 3 of which are a pass over the target."""
    domains = make_domains(tmp_path, "classify")
    config = AdaptConfig("tiny@1", ("t",), "tiny", device="cpu", views=0)
    return open_pairs(config, domains, METHODS["self-training"], make_accelerator("cpu", "fp32"), 0)


def test_an_epoch_is_a_pass_over_the_source(feed):
    pairs = list(feed.epoch(0, BATCH))
    assert sorted(item.image.name for pair in pairs for item in pair.items) == sorted(
        item.image.name for item in feed.source.table.of("train")
    )


def test_the_target_begins_again_when_it_is_through_and_not_before(feed):
    shown: list[str] = []
    for epoch in range(3):
        shown += [item.image.name for pair in feed.epoch(epoch, BATCH) for item in pair.target.items]
    images = {item.image.name for item in feed.target.table.of("train")}
    passes = [shown[k : k + len(images)] for k in range(0, len(shown), len(images))]
    whole = [each for each in passes if len(each) == len(images)]
    assert len(whole) == 4  # 12 steps of up to 4 images, 3 steps a pass
    assert all(set(each) == images for each in whole)
    assert len({tuple(each) for each in whole}) > 1  # in another order


def test_where_the_target_is_measured_an_epoch_is_a_pass_over_it(feed):
    measured = dataclasses.replace(feed, teaches=False, measures=True)
    pairs = list(measured.epoch(0, BATCH))
    assert len(pairs) == len(measured.order(0, BATCH)) == 3
    assert {item.image.name for pair in pairs for item in pair.target.items} == {
        item.image.name for item in feed.target.table.of("train")
    }
    assert [pair.items for pair in measured.epoch(0, BATCH, 2)] == [pairs[2].items]


@pytest.mark.parametrize("start", [1, 3])
def test_after_a_stop_the_pairs_are_those_that_would_have_come(feed, start):
    for epoch in (0, 1):
        whole = list(feed.epoch(epoch, BATCH))[start:]
        rest = list(feed.epoch(epoch, BATCH, start))
        assert len(whole) == len(rest) == 4 - start
        for one, other in zip(whole, rest, strict=True):
            for mine, theirs in ((one, other), (one.target, other.target), (one.plain, other.plain)):
                assert mine.inputs.keys() == theirs.inputs.keys()
                assert all(torch.equal(mine.inputs[key], theirs.inputs[key]) for key in mine.inputs)


def test_a_teacher_sees_the_same_images_as_they_are(feed):
    for pair in feed.epoch(0, BATCH):
        assert [item.image for item in pair.plain.items] == [item.image for item in pair.target.items]
        (plain,), (augmented,) = pair.plain.inputs.values(), pair.target.inputs.values()
        assert not torch.equal(plain, augmented)


def test_labels_of_the_target_tell_nothing(feed):
    seen = Counter(value for pair in feed.epoch(0, BATCH) for value in pair.target.targets.tolist())
    assert len(seen) == 1
    assert next(iter(seen)) < 0  # no index of a class, however many there are
