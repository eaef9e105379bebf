"""A bound on the pixels that are decoded at one moment, and so on the memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class PixelBudget:
    """Lets images in, in their order, while there is room for their pixels.

    Args:
        pixels: All that are held at once; no image may have more.
    """

    def __init__(self, pixels: int) -> None:
        self.free = pixels
        self._queue: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def hold(self, pixels: int) -> AsyncIterator[None]:
        """Wait until there is room, and hold it."""
        if self._queue or pixels > self.free:
            await self._wait(pixels)
        else:
            self.free -= pixels
        try:
            yield
        finally:
            self._give_back(pixels)

    async def _wait(self, pixels: int) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append((pixels, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._let_in()  # it may have stood before smaller ones
            else:  # its turn came at the very moment that it went
                self._give_back(pixels)
            raise

    def _give_back(self, pixels: int) -> None:
        self.free += pixels
        self._let_in()

    def _let_in(self) -> None:
        while self._queue:
            pixels, turn = self._queue[0]
            if turn.done():
                self._queue.popleft()
            elif pixels <= self.free:
                self._queue.popleft()
                self.free -= pixels
                turn.set_result(None)
            else:
                return
