"""Batches in a fixed order, loaded ahead by a pool of threads."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from surgery.artifact.errors import ConfigError

Source = TypeVar("Source")
T = TypeVar("T")


def batches(
    shapes: int | Sequence[Hashable],
    batch_size: int,
    seed: int = 0,
    epoch: int = 0,
    shuffle: bool = True,
) -> list[list[int]]:
    """Return the batches of one epoch as lists of indices; every index occurs once.

    Args:
        shapes: The shape of each item, or their number where all are alike; only items of the same
            shape share a batch.
        batch_size: Most items a batch holds; the last of each shape may hold fewer. With `shuffle` a
            single item that is left over joins the batch before it: batch norm cannot learn from one.
        seed: With `epoch`, decides the order alone: same numbers, same batches.
        epoch: Number of the epoch.
        shuffle: False keeps the order of the items.

    Raises:
        ConfigError: If the batch size is less than 1.
    """
    if batch_size < 1:
        raise ConfigError(f"batch size {batch_size} is less than 1", "choose 1 or more")
    keys: Sequence[Hashable] = [None] * shapes if isinstance(shapes, int) else shapes
    order = np.arange(len(keys))
    rng = np.random.default_rng([seed, epoch])
    if shuffle:
        rng.shuffle(order)
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for index in order.tolist():
        groups[keys[index]].append(index)
    found = [part for group in groups.values() for part in _split(group, batch_size, shuffle)]
    if shuffle and len(groups) > 1:
        return [found[i] for i in rng.permutation(len(found))]
    return found


def _split(group: list[int], batch_size: int, join_single: bool) -> list[list[int]]:
    parts = [group[start : start + batch_size] for start in range(0, len(group), batch_size)]
    if join_single and batch_size > 1 and len(parts) > 1 and len(parts[-1]) == 1:
        single = parts.pop()
        parts[-1] = parts[-1] + single
    return parts


def iterate(
    items: Sequence[Source],
    order: Sequence[Sequence[int]],
    fetch: Callable[[Source], T],
    workers: int = 2,
    ahead: int = 3,
) -> Iterator[list[T]]:
    """Yield the loaded batches in order, while threads load the next ones.

    Args:
        items: What the indices in `order` point at.
        order: Batches of indices, as `batches` returns them.
        fetch: Loads one item; called in threads, each item by itself.
        workers: Number of threads; 0 loads in the caller's thread.
        ahead: Batches that are loaded before they are asked for.

    Raises:
        Exception: What `fetch` raised, at the place of its batch, with a note that names the item.
    """
    if workers < 1:
        for batch in order:
            yield [_fetch(fetch, items[index]) for index in batch]
        return
    waiting: deque[list[Future[T]]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="load")
    try:
        for batch in order:
            waiting.append([pool.submit(_fetch, fetch, items[index]) for index in batch])
            if len(waiting) > ahead:
                yield [future.result() for future in waiting.popleft()]
        while waiting:
            yield [future.result() for future in waiting.popleft()]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _fetch(fetch: Callable[[Source], T], item: Source) -> T:
    try:
        return fetch(item)
    except Exception as error:
        error.add_note(f"while loading {item}")
        raise
