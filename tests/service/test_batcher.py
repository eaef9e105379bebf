"""What waits together runs together; errors stay with their image; nothing waits for more."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from service.batcher import Batcher
from service.pace import Pace, learn_pace

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
    return SimpleNamespace(session=network, pace=Pace(size, 64))


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
    learnt = Pace(8, 100)
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

    monkeypatch.setattr("service.pace.time", SimpleNamespace(perf_counter=lambda: clock[0]))
    assert learn_pace(Costly(), image(0), 8).size == size


def test_a_slow_network_is_not_measured_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, sizes = [0.0], []

    class Slow:
        def run(self, images: np.ndarray) -> None:
            sizes.append(len(images))
            clock[0] += 0.4

    monkeypatch.setattr("service.pace.time", SimpleNamespace(perf_counter=lambda: clock[0]))
    assert learn_pace(Slow(), image(0), 32).size == 1
    assert sizes == [1, 1]


class Lane(Network):
    """Says how many of it, and of its broad brother, run at the same time."""

    def __init__(self, busy: list[str], name: str, most: list[tuple[str, ...]]) -> None:
        super().__init__()
        self.busy, self.name, self.most = busy, name, most

    def run(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.busy.append(self.name)
        self.most.append(tuple(sorted(self.busy)))
        try:
            return super().run(images)
        finally:
            self.busy.remove(self.name)


@pytest.fixture
def lanes() -> Iterator[Batcher]:
    batcher = Batcher(lanes=3)
    batcher.start()
    yield batcher
    batcher.stop()


def in_lanes(count: int) -> tuple[Any, Lane, Lane, list[tuple[str, ...]]]:
    """Return a version with a graph on all cores and one for lanes, these, and who ran beside whom."""
    busy: list[str] = []
    seen: list[tuple[str, ...]] = []
    wide, narrow = Lane(busy, "wide", seen), Lane(busy, "narrow", seen)
    model = SimpleNamespace(
        session=wide, pace=Pace(1, 64, count), narrow=SimpleNamespace(session=lambda: narrow)
    )
    return model, wide, narrow, seen


def wait_until(condition: Any) -> None:
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until, "it did not come to that"
        time.sleep(0.001)


def test_an_image_alone_gets_all_cores_and_nobody_runs_beside_it(lanes: Batcher) -> None:
    model, wide, narrow, seen = in_lanes(3)
    runs = [started(lanes, model)]  # alone, and held up
    runs += [lanes.submit(model, image(value)) for value in range(1, 5)]
    time.sleep(0.05)
    assert seen == [("wide",)]
    wide.go_on.set()
    wait_until(lambda: len(narrow.busy) == 3)
    narrow.go_on.set()
    assert [float(run.result(10).logits[0]) for run in runs] == [0, 1, 2, 3, 4]
    assert max(map(len, seen)) == 3
    assert not any("wide" in names and len(names) > 1 for names in seen)
    assert wide.sizes == [1]
    assert lanes.submit(model, image(7)).result(10).batch == 1
    assert wide.sizes == [1, 1], "it was alone again"


def test_an_image_leaves_room_for_one_that_is_still_decoded(lanes: Batcher) -> None:
    model, wide, narrow, _ = in_lanes(3)
    wide.go_on.set()
    narrow.go_on.set()
    with lanes.expecting():
        lanes.submit(model, image(1)).result(10)
        with lanes.expecting():
            lanes.submit(model, image(2)).result(10)
        lanes.submit(model, image(3)).result(10)
    assert (len(wide.sizes), len(narrow.sizes)) == (2, 1)


def test_large_images_do_not_run_side_by_side(lanes: Batcher) -> None:
    model, wide, narrow, _ = in_lanes(3)
    wide.go_on.set()
    narrow.go_on.set()
    runs = [lanes.submit(model, image(value, 1200)) for value in range(3)]
    assert [float(run.result(10).logits[0]) for run in runs] == [0, 1, 2]
    assert (len(wide.sizes), len(narrow.sizes)) == (3, 0)


def test_no_more_lanes_than_were_learnt(lanes: Batcher) -> None:
    model, wide, narrow, seen = in_lanes(2)
    wide.go_on.set()
    first = lanes.submit(model, image(1))
    first.result(10)
    runs = [lanes.submit(model, image(value)) for value in range(6)]
    wait_until(lambda: len(narrow.busy) == 2 or all(run.done() for run in runs))
    time.sleep(0.05)
    narrow.go_on.set()
    assert [float(run.result(10).logits[0]) for run in runs] == [0, 1, 2, 3, 4, 5]
    assert max(map(len, seen)) <= 2


def test_a_version_without_lanes_waits_for_those_of_another(lanes: Batcher) -> None:
    model, wide, narrow, seen = in_lanes(3)
    other = Lane(narrow.busy, "other", seen)
    for network in (wide, other):
        network.go_on.set()
    runs = [lanes.submit(model, image(value)) for value in range(4)]
    runs += [lanes.submit(served(other), image(value)) for value in range(3)]
    runs += [lanes.submit(model, image(9))]
    narrow.go_on.set()
    assert [float(run.result(10).logits[0]) for run in runs] == [0, 1, 2, 3, 0, 1, 2, 9]
    assert not any("other" in names and len(names) > 1 for names in seen)


def test_an_error_in_a_lane_stays_with_its_image(lanes: Batcher) -> None:
    model, wide, narrow, _ = in_lanes(3)
    wide.go_on.set()
    narrow.go_on.set()
    runs = [lanes.submit(model, image(value)) for value in (1, BAD, 3, BAD, 5)]
    for run, value in zip(runs, (1, BAD, 3, BAD, 5), strict=True):
        if value == BAD:
            with pytest.raises(RuntimeError, match="bad image"):
                run.result(10)
        else:
            assert float(run.result(10).logits[0]) == value


def test_all_that_waits_is_answered_before_the_end(lanes: Batcher) -> None:
    model, wide, narrow, _ = in_lanes(3)
    runs = [started(lanes, model)] + [lanes.submit(model, image(value)) for value in range(9)]
    wide.go_on.set()
    narrow.go_on.set()
    lanes.stop()
    assert all(run.done() for run in runs)


class Timed:
    """Takes a stated time for an image, by a clock of its own."""

    def __init__(self, clock: list[float], seconds: float) -> None:
        self.clock, self.seconds = clock, seconds

    def run(self, images: np.ndarray) -> None:
        self.clock[0] += self.seconds * len(images)


class SideBySide(Timed):
    """Two runs of it begin together and end together."""

    def __init__(self, clock: list[float], seconds: float) -> None:
        super().__init__(clock, seconds)
        self.together = threading.Barrier(2, timeout=10)

    def run(self, images: np.ndarray) -> None:
        if self.together.wait() == 0:
            self.clock[0] += 2 * self.seconds
        self.together.wait()


@pytest.mark.parametrize(("side_by_side", "lanes"), [(0.8, 2), (1.0, 2), (1.3, 1)])
def test_lanes_are_taken_where_they_make_no_image_dearer(
    monkeypatch: pytest.MonkeyPatch, side_by_side: float, lanes: int
) -> None:
    clock = [0.0]
    monkeypatch.setattr("service.pace.time", SimpleNamespace(perf_counter=lambda: clock[0]))
    narrow = SideBySide(clock, side_by_side * 1e-3)
    pace = learn_pace(Timed(clock, 1e-3), image(0), 1, 2, lambda: narrow)
    assert (pace.size, pace.lanes) == (1, lanes)


def test_a_slow_network_gets_its_lanes_unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("service.pace.time", SimpleNamespace(perf_counter=lambda: clock[0]))

    def narrow() -> Any:
        raise AssertionError("nobody has the time")

    assert learn_pace(Timed(clock, 0.3), image(0), 32, 2, narrow).lanes == 2
    assert clock[0] < 0.7
