"""Ctrl-C and SIGTERM, kept until the step in hand is done, so that a checkpoint is whole."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from surgery.artifact.errors import SurgeryError

_requested = threading.Event()


def stop_requested() -> bool:
    """Return whether the user asked the run to stop."""
    return _requested.is_set()


def raise_if_requested() -> None:
    """Stop here if the user asked for it.

    Raises:
        KeyboardInterrupt: If so.
    """
    if _requested.is_set():
        raise KeyboardInterrupt


@contextmanager
def stoppable(kept: str, hint: str) -> Iterator[None]:
    """Let the user stop a command, and say what is kept and how to go on.

    Args:
        kept: What a stop loses nothing of, in words.
        hint: How to go on.

    Raises:
        SurgeryError: If the user stopped it.
    """
    try:
        with deferred_interrupts():
            yield
    except KeyboardInterrupt:
        raise SurgeryError(f"stopped; {kept}", hint) from None


@contextmanager
def deferred_interrupts() -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM into a request; a second one stops at once."""

    def note(number: int, frame: FrameType | None) -> None:
        if _requested.is_set():
            raise KeyboardInterrupt
        _requested.set()
        os.write(2, b"\nstopping after the step in hand; once more stops at once\n")

    before: dict[int, Any] = {}
    _requested.clear()
    if threading.current_thread() is threading.main_thread():
        before = {n: signal.signal(n, note) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _requested.clear()
