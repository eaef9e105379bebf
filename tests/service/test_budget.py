"""Images wait for room, in their order, and give it back whatever happens."""

from __future__ import annotations

import asyncio
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
            async with budget.hold(pixels):
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
            async with budget.hold(pixels):
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
        room = budget.hold(10)
        await room.__aenter__()
        waiting = asyncio.create_task(budget.hold(10).__aenter__())
        await settle()
        await room.__aexit__(None, None, None)  # its turn is set, but it has not run yet
        waiting.cancel()
        await settle()
        assert budget.free == 10

    run(story())
