"""The queue before the networks: what waits together runs together, and nothing ever waits for more."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from surgery.artifact.image import Pixels
from surgery.artifact.session import Floats, Session

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
    """One thread that runs networks, oldest image first.

    It takes the oldest image and, with it, others that wait for the same version at the same size, up to
    what `Served.batch` learnt to be worth it. It never waits for more of them while something is there to
    do: an image alone runs alone. A run that fails is repeated image by image, so that an error stays with
    the image that caused it.
    """

    def __init__(self) -> None:
        self._waiting: deque[Place] = deque()
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name="networks", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float | None = None) -> None:
        """End the thread once nothing waits any more, and wait for that, or so long at most."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

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
                while not self._waiting and not self._stopped:
                    self._changed.wait()
                if not self._waiting:
                    return
                places = self._take()
            # Whoever does not want the answer any more has cancelled it.
            places = [place for place in places if place.future.set_running_or_notify_cancel()]
            if places:
                _answer(places)

    def _take(self) -> list[Place]:
        """Take the oldest image, and those that can run with it."""
        first = self._waiting[0]
        most = first.served.batch.most(first.image.shape[0] * first.image.shape[1])
        taken: list[Place] = []
        left: list[Place] = []
        for place in self._waiting:
            fits = place.served is first.served and place.explain == first.explain
            fits = fits and place.image.shape == first.image.shape
            (taken if fits and len(taken) < most else left).append(place)
        self._waiting = deque(left)
        return taken


def _answer(places: list[Place]) -> None:
    started = time.perf_counter()
    session = places[0].served.session
    try:
        images = np.stack([place.image for place in places]) if len(places) > 1 else places[0].image[None]
        run = session.run_explained if places[0].explain else session.run
        logits, embedding, *more = run(images)
    except Exception as error:  # whatever a run raises, the thread must live and each image get its own
        if len(places) == 1:
            places[0].future.set_exception(error)
            return
        log.warning("a run of %d images failed (%s); they run one by one", len(places), error)
        for place in places:
            _answer([place])
        return
    spent = time.perf_counter() - started
    for k, place in enumerate(places):
        cam = more[0][k] if more else None
        place.future.set_result(Run(logits[k], embedding[k], started - place.since, spent, len(places), cam))


@dataclass(frozen=True)
class Batch:
    """How many images at once are worth it, learnt at one size."""

    size: int = 1
    pixels: int = 1
    """Pixels of the images that it was learnt with."""

    def most(self, pixels: int) -> int:
        """Return how many images of so many pixels run at once; fewer where they are larger."""
        return self.size if pixels <= self.pixels else max(1, self.size * self.pixels // pixels)


LEARN_S = 0.5
"""Seconds that learning may take for one version."""
WORTH = 0.95
"""A larger batch must cost less than this share of the time per image to be taken."""


def learn_batch(session: Session, image: Pixels, most: int) -> Batch:
    """Measure batches of 1, 2, 4 … of an image and return the largest that still makes it faster.

    Each size runs once to be ready and then until the shortest of three, within `LEARN_S` seconds in
    all; a network too slow for that runs images one by one.
    """
    until = time.perf_counter() + LEARN_S
    best, size = Batch(1, image.shape[0] * image.shape[1]), 1
    per_image = _seconds(session, image, 1, until)
    while size * 2 <= most and time.perf_counter() + 4 * size * 2 * per_image < until:
        size *= 2
        seconds = _seconds(session, image, size, until)
        if seconds > WORTH * per_image:
            break
        best, per_image = Batch(size, best.pixels), seconds
    return best


def _seconds(session: Session, image: Pixels, size: int, until: float) -> float:
    images = np.repeat(image[None], size, axis=0)
    found = []
    for _ in range(4):
        started = time.perf_counter()
        session.run(images)
        found.append(time.perf_counter() - started)
        if time.perf_counter() > until:
            break
    return min(found) / size
