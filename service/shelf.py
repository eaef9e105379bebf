"""The versions that are in memory, and why others are not."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from surgery.artifact.errors import StoreError, SurgeryError
from surgery.artifact.graph import GraphCache
from surgery.artifact.store import StoredVersion

from .memory import return_freed_blocks
from .served import Engine, Served, load_version
from .settings import Settings

Key = tuple[str, int]
"""Name and version."""
RETRY_S = 60.0
"""Seconds after which a version is tried again whose files are not known to be at fault: a GPU was full."""


@dataclass(frozen=True)
class Failure:
    """Why a version could not be loaded.

    Attributes:
        stamp: Of its files then.
        reason: In words.
        until: Moment, by the monotonic clock, up to which it is not tried again while they stay so.
    """

    stamp: object
    reason: str
    until: float


class Shelf:
    """Loads versions, one at a time, and keeps those that were asked for within a bound.

    Args:
        settings: Where networks run, and the bound.
        in_use: Returns the versions that are held anyway, those in production first.
    """

    def __init__(self, settings: Settings, in_use: Callable[[], Iterable[Served]]) -> None:
        self.settings = settings
        self._in_use = in_use
        self._kept: OrderedDict[Key, Served] = OrderedDict()
        self._failed: dict[Key, Failure] = {}
        self._loading = threading.Lock()
        self._keeping = threading.Lock()
        """Not the one above: nobody who is answered from memory waits for a version to be loaded."""
        kept = settings.graph_cache_mib > 0
        cache = GraphCache(settings.graph_cache, settings.graph_cache_mib) if kept else None
        self._engine = Engine(
            settings.device, settings.threads, settings.max_batch, settings.max_lanes, cache
        )

    def take(self, stored: StoredVersion) -> Served:
        """Return a version, as it is loaded or from the disk.

        Raises:
            StoreError: If it cannot be loaded.
        """
        known = self.loaded(stored)
        if known is not None:
            return known
        with self._loading:
            return self.loaded(stored) or self._open(stored, self._engine)

    def open_apart(self, stored: StoredVersion) -> Served:
        """Load a version once more, for a thread of its own that runs image by image.

        Raises:
            StoreError: If it cannot be loaded.
        """
        with self._loading:
            return self._open(stored, replace(self._engine, threads=1, max_batch=1, lanes=1))

    def loaded(self, stored: StoredVersion) -> Served | None:
        """Return a version if it is in memory."""
        key = (stored.name, stored.version)
        for served in (*self._in_use(), self._kept.get(key)):
            # A folder can be replaced by another of the same number behind the store's back.
            if served is not None and served.key == key and served.manifest == stored.manifest:
                return served
        return None

    def keep(self, served: Served) -> None:
        """Keep a version in memory; the least recently used of the kept ones go."""
        with self._keeping:
            self._kept[served.key] = served
            self._kept.move_to_end(served.key)
            others = [key for key in self._kept if key != served.key]
            room = self.settings.max_extra_mib - sum(each.mib for each in self._kept.values())
            while others and room < 0:  # the one that is asked for stays, however large
                room += self._kept.pop(others.pop(0)).mib

    def reason(self, key: Key) -> str | None:
        """Return why a version could not be loaded; None if it was not tried, or could."""
        return self._failed[key].reason if key in self._failed else None

    def failures(self) -> list[Key]:
        """Return the versions that could not be loaded."""
        return list(self._failed)

    def overdue(self) -> list[Key]:
        """Return those of them that may have passed by now."""
        now = time.monotonic()
        return [key for key, failure in list(self._failed.items()) if failure.until <= now]

    def forget(self, keys: Iterable[Key]) -> None:
        """Forget that versions could not be loaded."""
        for key in keys:
            self._failed.pop(key, None)

    def _open(self, stored: StoredVersion, engine: Engine) -> Served:
        """Load a version; one whose files are at fault is tried again only when they have changed."""
        key, stamp = (stored.name, stored.version), stamp_of(stored.path)
        failure = self._failed.get(key)
        if failure is not None and failure.stamp == stamp and time.monotonic() < failure.until:
            raise StoreError(failure.reason)
        try:
            served = load_version(stored, engine)
        except Exception as error:  # whatever one model raises, it must not take others along
            lasts = math.inf if isinstance(error, StoreError) else RETRY_S
            self._failed[key] = Failure(stamp, reason_of(error), time.monotonic() + lasts)
            raise StoreError(reason_of(error), getattr(error, "hint", "")) from error
        self._failed.pop(key, None)
        return_freed_blocks()
        return served


def reason_of(error: Exception) -> str:
    """Return what an error says, in words."""
    text = error.message if isinstance(error, SurgeryError) else str(error)
    return text or type(error).__name__


def stamp_of(folder: Path, inside: bool = True) -> object:
    """Return what changes when a file of a folder does; None if it cannot be read."""
    try:
        paths = [folder, *(sorted(folder.rglob("*")) if inside else [])]
        states = [(str(path), path.stat()) for path in paths]
    except OSError:
        return None
    return [(path, state.st_size, state.st_mtime_ns) for path, state in states]
