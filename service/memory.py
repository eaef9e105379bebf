"""What the C library does with freed memory: it keeps it, unless it is told otherwise."""

from __future__ import annotations

import contextlib
import ctypes

_MMAP_THRESHOLD = -3
_LARGE_BYTES = 4 * 2**20


def return_large_blocks() -> None:
    """Have blocks from 4 MiB on, decoded photographs that is, mapped one by one and given back when freed.

    glibc raises that size to 32 MiB when it first sees one freed, and from then on keeps what such blocks
    have torn into its heap. Other C libraries are left as they are.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)


def return_freed_blocks() -> None:
    """Give back what is free now, as after a model was loaded."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
