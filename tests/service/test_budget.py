"""Images wait for room, in their order, and give it back whatever happens."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from service.budget import PixelBudget


def run(story: Any) -> None:
    asyncio.run(asyncio.wait_for(story, 10))


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_no_more_than_the_budget_is_held_and_the_order_stays() -> None:
    async def story() -> None:
        budget, held, most, order = PixelBudget(10), [0], [0], []

        async def image(name: str, pixels: int) -> None:
            with budget.share() as share:
                await share.take(pixels)
                order.append(name)
                held[0] += pixels
                most[0] = max(most[0], held[0])
                await asyncio.sleep(0.001)
                held[0] -= pixels

        await asyncio.gather(
            *(image(name, pixels) for name, pixels in zip("abcdef", (4, 4, 9, 1, 10, 2), strict=True))
        )
        assert most[0] <= 10
        assert "".join(order) == "abcdef"
        assert budget.free == 10

    run(story())


def test_who_goes_while_waiting_takes_nothing_and_blocks_nobody() -> None:
    async def story() -> None:
        budget, entered = PixelBudget(10), []

        async def image(name: str, pixels: int) -> None:
            with budget.share() as share:
                await share.take(pixels)
                entered.append(name)
                await asyncio.sleep(10)

        first = asyncio.create_task(image("first", 6))
        large = asyncio.create_task(image("large", 10))
        small = asyncio.create_task(image("small", 3))
        await settle()
        assert entered == ["first"]
        large.cancel()
        await settle()
        assert entered == ["first", "small"]
        for task in (first, small):
            task.cancel()
        await settle()
        assert budget.free == 10

    run(story())


def test_who_goes_at_the_moment_of_its_turn_gives_it_back() -> None:
    async def story() -> None:
        budget = PixelBudget(10)

        async def image() -> None:
            with budget.share() as share:
                await share.take(10)

        with budget.share() as room:
            await room.take(10)
            waiting = asyncio.create_task(image())
            await settle()
        waiting.cancel()  # its turn is set, but it has not run yet
        await settle()
        assert budget.free == 10

    run(story())


def test_who_comes_at_once_goes_before_nobody() -> None:
    async def story() -> None:
        budget = PixelBudget(10)
        with budget.share() as first, budget.share() as hasty:
            assert first.take_now(6)
            with budget.share() as second:
                waiting = asyncio.create_task(second.take(5))
                await settle()
                assert not hasty.take_now(1), "somebody waits"
                waiting.cancel()
                await settle()
            assert not hasty.take_now(5), "there is no room"
            assert hasty.take_now(4)
        assert budget.free == 10

    run(story())


def test_what_a_thread_takes_too_late_is_not_taken() -> None:
    budget = PixelBudget(10)
    with budget.share() as share:
        pass
    assert not share.take_now(1)
    assert budget.free == 10


def test_threads_never_hold_more_than_there_is() -> None:
    budget, lock, held, most = PixelBudget(10), threading.Lock(), [0], [0]

    def work(seed: int) -> None:
        for k in range(300):
            pixels = 1 + (seed * 7 + k) % 9
            with budget.share() as share:
                if share.take_now(pixels):
                    with lock:
                        held[0] += pixels
                        most[0] = max(most[0], held[0])
                    with lock:
                        held[0] -= pixels

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert most[0] <= 10
    assert budget.free == 10
