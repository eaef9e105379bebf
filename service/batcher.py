"""The queue before the networks: what waits together runs together, and nothing ever waits for more."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from surgery.artifact.image import Pixels
from surgery.artifact.session import Floats

if TYPE_CHECKING:
    from .served import Served

log = logging.getLogger("surgery.service")


@dataclass(frozen=True)
class Run:
    """What a network made of one image, and how."""

    logits: Floats
    """Shape (c,) or (c, h, w)."""
    embedding: Floats
    """Shape (d,)."""
    queue_s: float
    """Seconds that the image waited for the network to be free."""
    inference_s: float
    """Seconds of the run that it was part of."""
    batch: int
    """Images in that run."""
    cam: Floats | None = None
    """Class activation map, shape (c, h', w'), if it was asked for."""


@dataclass(frozen=True)
class Place:
    """One image in the queue."""

    served: Served
    image: Pixels
    """Shape (h, w, 3)."""
    explain: bool
    """Whether its class activation map is wanted."""
    future: Future[Run] = field(default_factory=Future)
    since: float = field(default_factory=time.perf_counter)


class Batcher:
    """Threads that run networks, oldest image first.

    An image that is alone runs at once and on all cores. Where others wait or are decoded, too, it runs as
    `Served.pace` learnt to be worth it: with those for the same version at the same size, as one batch on all
    cores, or each in a lane of its own on a share of them. Nothing ever waits for more images while a
    network is free. A run that fails is repeated image by image, so that an error stays with its image.

    Args:
        lanes: Most runs side by side.
    """

    def __init__(self, lanes: int = 1) -> None:
        self._waiting: deque[Place] = deque()
        self._changed = threading.Condition()
        self._stopped = False
        self._expected = 0
        """Images that are on their way here, waiting, or in a network."""
        self._lanes_used = 0
        self._wide = False
        """Whether a run has all cores."""
        names = [f"networks-{number}" for number in range(lanes)]
        self._threads = [threading.Thread(target=self._work, name=name, daemon=True) for name in names]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float | None = None) -> None:
        """End the threads once nothing waits any more, and wait for that, or so long at most."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        until = None if timeout_s is None else time.monotonic() + timeout_s
        for thread in self._threads:
            if thread.is_alive():
                thread.join(None if until is None else max(0.0, until - time.monotonic()))

    @contextmanager
    def expecting(self) -> Iterator[None]:
        """Know of an image from before it is decoded until it is answered. For the event loop."""
        self._expected += 1
        try:
            yield
        finally:
            self._expected -= 1

    def submit(self, served: Served, image: Pixels, explain: bool = False) -> Future[Run]:
        """Put an image, (h, w, 3) as the network takes it, at the end of the queue."""
        place = Place(served, image, explain)
        with self._changed:
            self._waiting.append(place)
            self._changed.notify()
        return place.future

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._may_start():
                    if self._stopped and not self._waiting:
                        return
                    self._changed.wait()
                wide = not self._goes_in_lane()
                places = self._take(wide)
                self._wide, self._lanes_used = wide, self._lanes_used + 1
                if self._waiting:
                    self._changed.notify()  # there may be another lane
            # Whoever does not want the answer any more has cancelled it.
            places = [place for place in places if place.future.set_running_or_notify_cancel()]
            if places:
                _answer(places, wide)
            with self._changed:
                self._wide, self._lanes_used = False, self._lanes_used - 1
                if self._waiting or self._stopped:
                    self._changed.notify_all()

    def _may_start(self) -> bool:
        """Whether the oldest image can run beside what runs."""
        if not self._waiting or self._wide:
            return False
        return self._lanes_used == 0 or self._lanes_used < self._lanes_of_oldest()

    def _goes_in_lane(self) -> bool:
        """Whether the oldest image is to run on a share of the cores: it has lanes, and company."""
        company = max(self._expected, len(self._waiting) + self._lanes_used) > 1
        return company and self._lanes_of_oldest() > 1

    def _lanes_of_oldest(self) -> int:
        oldest = self._waiting[0]
        pixels = oldest.image.shape[0] * oldest.image.shape[1]
        return min(oldest.served.pace.side_by_side(pixels), len(self._threads))

    def _take(self, wide: bool) -> list[Place]:
        """Take the oldest image, and those that can run with it."""
        if not wide:
            return [self._waiting.popleft()]
        first = self._waiting[0]
        most = first.served.pace.most(first.image.shape[0] * first.image.shape[1])
        taken: list[Place] = []
        left: list[Place] = []
        for place in self._waiting:
            fits = place.served is first.served and place.explain == first.explain
            fits = fits and place.image.shape == first.image.shape
            (taken if fits and len(taken) < most else left).append(place)
        self._waiting = deque(left)
        return taken


def _answer(places: list[Place], wide: bool) -> None:
    started = time.perf_counter()
    served = places[0].served
    try:
        session = served.session if wide or served.narrow is None else served.narrow.session()
        images = np.stack([place.image for place in places]) if len(places) > 1 else places[0].image[None]
        run = session.run_explained if places[0].explain else session.run
        logits, embedding, *more = run(images)
    except Exception as error:  # whatever a run raises, the thread must live and each image get its own
        if len(places) == 1:
            places[0].future.set_exception(error)
            return
        log.warning("a run of %d images failed (%s); they run one by one", len(places), error)
        for place in places:
            _answer([place], wide)
        return
    spent = time.perf_counter() - started
    for k, place in enumerate(places):
        cam = more[0][k] if more else None
        place.future.set_result(Run(logits[k], embedding[k], started - place.since, spent, len(places), cam))
