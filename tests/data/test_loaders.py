"""Batches hold every item once, in an order that seed and epoch decide; loading keeps it."""

from __future__ import annotations

import random
import threading
import time

import pytest

from surgery.artifact.errors import ConfigError, ImageError
from surgery.data.loaders import batches, iterate


def test_every_item_occurs_once_and_only_beside_its_own_shape():
    shapes = [(4, 4), (8, 4), (4, 4), (4, 4), (8, 4), (2, 2), (4, 4)] * 3
    found = batches(shapes, 4, seed=1, epoch=2)
    assert sorted(index for batch in found for index in batch) == list(range(21))
    assert all(len({shapes[index] for index in batch}) == 1 and len(batch) <= 4 for batch in found)
    assert len(found) == 3 + 2 + 1


def test_seed_and_epoch_decide_the_order_alone():
    random.seed(5)
    assert batches(50, 8, 1, 2) == batches(50, 8, 1, 2)
    orders = {str(batches(50, 8, seed, epoch)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9
    assert batches(5, 2, 9, 9, shuffle=False) == [[0, 1], [2, 3], [4]]
    assert batches(0, 2) == []


def test_an_impossible_batch_is_refused():
    with pytest.raises(ConfigError):
        batches(5, 0)


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_batches_come_in_order_whoever_is_first(workers):
    def fetch(item: int) -> int:
        time.sleep(0.001 * (item * 7 % 5))
        return item * 10

    order = batches(23, 4, seed=3)
    loaded = list(iterate(range(23), order, fetch, workers))
    assert loaded == [[index * 10 for index in batch] for batch in order]


@pytest.mark.parametrize("workers", [0, 3])
def test_an_error_keeps_its_type_and_names_its_item(workers):
    def fetch(item: str) -> str:
        if item == "bad.jpg":
            raise ImageError("truncated", "send it again")
        return item

    reader = iterate(["a.jpg", "bad.jpg", "c.jpg"], [[0], [1], [2]], fetch, workers)
    assert next(reader) == ["a.jpg"]
    with pytest.raises(ImageError, match="truncated") as caught:
        next(reader)
    assert any("bad.jpg" in note for note in caught.value.__notes__)


def test_loading_runs_ahead_by_a_bound_and_ends_with_its_reader():
    started: list[int] = []
    before = threading.active_count()
    reader = iterate(range(1000), [[i] for i in range(1000)], lambda i: started.append(i), 2, ahead=5)
    next(reader)
    time.sleep(0.05)
    assert len(started) <= 6
    reader.close()
    assert threading.active_count() == before


def test_a_single_item_left_over_joins_the_batch_before_it():
    assert [len(batch) for batch in batches(9, 4)] == [4, 5]
    assert [len(batch) for batch in batches(9, 4, shuffle=False)] == [4, 4, 1]
    assert [len(batch) for batch in batches(3, 1)] == [1, 1, 1]
    assert [len(batch) for batch in batches(["a", "a", "a", "b"], 2, shuffle=True)].count(1) == 1
