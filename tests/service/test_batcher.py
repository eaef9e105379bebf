"""What waits together runs together; errors stay with their image; nothing waits for more."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from service.batcher import Batch, Batcher, learn_batch

BAD = 13
"""Value of the pixel that the network cannot stand."""


class Network:
    """Answers the first pixel of each image; the first run waits to be let go."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.go_on = threading.Event()

    def run(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.go_on.wait(10)
        self.sizes.append(len(images))
        first = images[:, 0, 0, :1].astype(np.float32)  # (n, 1)
        if (first == BAD).any():
            raise RuntimeError("bad image")
        return first, first


@pytest.fixture
def network() -> Network:
    return Network()


@pytest.fixture
def batcher() -> Iterator[Batcher]:
    batcher = Batcher()
    batcher.start()
    yield batcher
    batcher.stop()


def served(network: Any, size: int = 4) -> Any:
    return SimpleNamespace(session=network, batch=Batch(size, 64))


def image(value: int, side: int = 8) -> np.ndarray:
    return np.full((side, side, 3), value, np.uint8)


def started(batcher: Batcher, model: Any) -> Any:
    """Put one image in and wait until it is inside the network, so that all others queue up."""
    first = batcher.submit(model, image(0))
    while batcher.waiting:
        time.sleep(0.001)
    return first


def test_what_waits_runs_together_and_each_gets_its_own(batcher: Batcher, network: Network) -> None:
    model = served(network)
    first = started(batcher, model)
    runs = [batcher.submit(model, image(value)) for value in range(1, 7)]
    network.go_on.set()
    assert first.result(10).batch == 1
    assert [float(run.result(10).logits[0]) for run in runs] == [1, 2, 3, 4, 5, 6]
    assert [run.result().batch for run in runs] == [4, 4, 4, 4, 2, 2]
    assert network.sizes == [1, 4, 2]
    assert all(run.result().queue_s > 0 for run in runs)


def test_an_image_alone_runs_alone_and_at_once(batcher: Batcher, network: Network) -> None:
    network.go_on.set()
    for value in range(3):
        assert batcher.submit(served(network), image(value)).result(10).batch == 1


def test_other_sizes_and_other_models_run_apart_in_their_order(batcher: Batcher, network: Network) -> None:
    model, other = served(network), served(network)
    started(batcher, model)
    ended: list[str] = []
    for name, who, side in (("a", model, 8), ("b", model, 4), ("c", other, 8), ("d", model, 8)):
        run = batcher.submit(who, image(1, side))
        run.add_done_callback(lambda _, name=name: ended.append(name))
    network.go_on.set()
    batcher.stop()
    assert network.sizes == [1, 2, 1, 1]
    assert ended == ["a", "d", "b", "c"]


def test_an_error_stays_with_its_image(batcher: Batcher, network: Network) -> None:
    model = served(network)
    started(batcher, model)
    runs = [batcher.submit(model, image(value)) for value in (1, BAD, 3)]
    network.go_on.set()
    assert float(runs[0].result(10).logits[0]) == 1
    with pytest.raises(RuntimeError, match="bad image"):
        runs[1].result(10)
    assert float(runs[2].result(10).logits[0]) == 3
    assert batcher.submit(model, image(5)).result(10).batch == 1


def test_whoever_has_gone_costs_nothing(batcher: Batcher, network: Network) -> None:
    model = served(network)
    started(batcher, model)
    gone, there = batcher.submit(model, image(1)), batcher.submit(model, image(2))
    assert gone.cancel()
    network.go_on.set()
    assert there.result(10).batch == 1
    assert network.sizes == [1, 1]


def test_larger_images_run_in_smaller_batches() -> None:
    learnt = Batch(8, 100)
    assert [learnt.most(pixels) for pixels in (50, 100, 200, 500, 10_000)] == [8, 8, 4, 1, 1]


@pytest.mark.parametrize(
    ("cost", "size"),
    [(lambda n: 1 + 0.01 * n, 8), (lambda n: n, 1), (lambda n: 1 + 0.1 * n if n <= 4 else 9 * n, 4)],
)
def test_the_size_is_the_largest_that_still_makes_an_image_cheaper(
    monkeypatch: pytest.MonkeyPatch, cost: Any, size: int
) -> None:
    clock = [0.0]

    class Costly:
        def run(self, images: np.ndarray) -> None:
            clock[0] += cost(len(images)) * 1e-6

    monkeypatch.setattr("service.batcher.time", SimpleNamespace(perf_counter=lambda: clock[0]))
    assert learn_batch(Costly(), image(0), 8).size == size


def test_a_slow_network_is_not_measured_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, sizes = [0.0], []

    class Slow:
        def run(self, images: np.ndarray) -> None:
            sizes.append(len(images))
            clock[0] += 0.4

    monkeypatch.setattr("service.batcher.time", SimpleNamespace(perf_counter=lambda: clock[0]))
    assert learn_batch(Slow(), image(0), 32).size == 1
    assert sizes == [1, 1]
