"""How a version answers the most images a second: learnt by measuring when it is loaded."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from surgery.artifact.image import Pixels
from surgery.artifact.session import Session

LEARN_S = 0.5
"""Seconds that learning may take for one version."""
WORTH = 0.95
"""A larger batch must cost less than this share of the time per image to be taken."""
AS_GOOD = 1.1
"""Lanes may cost so much of the time per image while nothing else runs: decoding does not hold them up."""
FREE_PIXELS = 2**19
"""Images up to so many pixels may always run side by side; the memory of larger ones is bounded."""
ROUNDS = 3
TRIES = 8
"""How often lanes are measured beside the best batch, while there is time; the shortest of each counts."""


@dataclass(frozen=True)
class Pace:
    """What to do with images that wait; an image alone gets all cores."""

    size: int = 1
    """Images in one run."""
    pixels: int = 1
    """Pixels of the images that it was learnt with."""
    lanes: int = 1
    """Runs side by side, of one image each on its share of the cores."""

    def side_by_side(self, pixels: int) -> int:
        """Return how many images of so many pixels run in lanes; fewer where they are larger."""
        free = max(self.pixels, FREE_PIXELS)
        return self.lanes if pixels <= free else max(1, self.lanes * free // pixels)

    def most(self, pixels: int) -> int:
        """Return how many images of so many pixels run at once; fewer where they are larger."""
        return self.size if pixels <= self.pixels else max(1, self.size * self.pixels // pixels)


class Narrow:
    """The graph of a version once more, on a share of the cores: opened when images first wait.

    Args:
        open: Opens it; its weights are those of the other one, mapped from the same file.
    """

    def __init__(self, open: Callable[[], Session]) -> None:
        self._open = open
        self._session: Session | None = None
        self._opening = threading.Lock()

    def session(self) -> Session:
        """Return the opened graph."""
        with self._opening:
            if self._session is None:
                self._session = self._open()
            return self._session


def learn_pace(
    session: Session,
    image: Pixels,
    most: int,
    lanes: int = 1,
    narrow: Callable[[], Session] | None = None,
    single: bool = True,
) -> Pace:
    """Measure batches of 1, 2, 4 … of an image on all cores, and single ones side by side on a share of them.

    A batch is taken if it makes an image cheaper, lanes if they do not make it dearer than that. Each way
    runs once to be ready and then until the shortest of three, within `LEARN_S` seconds in all. A network
    that is too slow for this keeps every core busy by itself: its images run one by one, or in lanes of one
    core each.

    Args:
        session: The graph on all cores.
        image: Shape (h, w, 3), as the network takes it.
        most: Largest batch.
        lanes: Runs side by side.
        narrow: Opens the graph on the share of the cores that a lane has.
        single: Whether that is one core.
    """
    until = time.perf_counter() + LEARN_S
    pixels, best, size = image.shape[0] * image.shape[1], 1, 1
    per_image = _seconds(session, image, 1, until)
    while size * 2 <= most and time.perf_counter() + 4 * size * 2 * per_image < until:
        size *= 2
        seconds = _seconds(session, image, size, until)
        if seconds > WORTH * per_image:
            break
        best, per_image = size, seconds
    if lanes > 1 and narrow is not None:
        slow = (ROUNDS + 1) * lanes * per_image > LEARN_S
        if single if slow else _lanes_are_worth_it(session, image, best, lanes, narrow(), until):
            return Pace(1, pixels, lanes)
    return Pace(best, pixels)


def _lanes_are_worth_it(
    session: Session, image: Pixels, size: int, lanes: int, narrow: Session, until: float
) -> bool:
    batch = np.repeat(image[None], size, axis=0)
    wide, side = [], []
    with ThreadPoolExecutor(lanes) as pool:
        list(pool.map(_seconds_of_some, [narrow] * lanes, [image] * lanes))  # to be ready
        for _ in range(TRIES):
            started = time.perf_counter()
            session.run(batch)
            wide.append((time.perf_counter() - started) / size)
            found = pool.map(_seconds_of_some, [narrow] * lanes, [image] * lanes)
            side.append(max(found) / lanes)
            if time.perf_counter() > until:
                break
    return min(side) <= AS_GOOD * min(wide)


def _seconds_of_some(session: Session, image: Pixels) -> float:
    started = time.perf_counter()
    for _ in range(ROUNDS):
        session.run(image[None])
    return (time.perf_counter() - started) / ROUNDS


def _seconds(session: Session, image: Pixels, size: int, until: float) -> float:
    images = np.repeat(image[None], size, axis=0)
    found = []
    for _ in range(ROUNDS + 1):
        started = time.perf_counter()
        session.run(images)
        found.append(time.perf_counter() - started)
        if time.perf_counter() > until:
            break
    return min(found) / size
