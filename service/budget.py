"""A bound on the pixels that are decoded at one moment, and so on the memory."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class PixelBudget:
    """Lets images in, in their order, while there is room for their pixels.

    Args:
        pixels: All that are held at once; no image may have more.
    """

    def __init__(self, pixels: int) -> None:
        self.free = pixels
        self._queue: deque[tuple[int, asyncio.Future[None], Share]] = deque()
        self._lock = threading.Lock()

    @contextmanager
    def share(self) -> Iterator[Share]:
        """Open a share that holds nothing yet, and give back what it holds in the end."""
        share = Share(self)
        try:
            yield share
        finally:
            with self._lock:
                share.closed = True
                self.free += share.pixels
                self._let_in()

    def _let_in(self) -> None:
        """Let in who has waited longest, while there is room."""
        while self._queue:
            pixels, turn, share = self._queue[0]
            if not turn.done():
                if pixels > self.free:
                    return
                self.free -= pixels
                share.pixels = pixels
                turn.set_result(None)
            self._queue.popleft()


class Share:
    """What one image holds of the budget."""

    def __init__(self, budget: PixelBudget) -> None:
        self._budget = budget
        self.pixels = 0
        self.closed = False

    def take_now(self, pixels: int) -> bool:
        """Take room for an image if there is some and nobody waits for it. For any thread."""
        budget = self._budget
        with budget._lock:
            if self.closed or budget._queue or pixels > budget.free:
                return False
            budget.free -= pixels
            self.pixels = pixels
            return True

    async def take(self, pixels: int) -> None:
        """Wait until there is room, and take it. For the thread of the event loop."""
        budget = self._budget
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (pixels, turn, self)
        with budget._lock:
            budget._queue.append(entry)
            budget._let_in()
        try:
            await turn
        finally:
            with budget._lock:
                with suppress(ValueError):  # its turn has come
                    budget._queue.remove(entry)
                budget._let_in()  # it may have stood before smaller ones
