"""The activation cache: what lies before the first trainable layer is run once per image and view."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from platformdirs import user_cache_path
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from surgery.artifact.errors import DiskFullError
from surgery.train.interrupt import raise_if_requested
from surgery.train.reporting import Reporter, Task

HALF_MAX = 65504.0
"""Largest finite half float; larger activations are clipped to it."""
LOCK = "in-use.lock"
KEY = "key.json"
NAME_DIGITS = 20
"""Hex digits in the name of a cache's folder."""
FREE_DISK_SHARE = 0.9
"""Share of the free disk that a cache may fill."""
MEMORY_BYTES = 1 << 30
"""A cache no larger than this is also held in memory."""

Record = dict[str, Tensor]
"""One image and view: `target`, `size`, and the half-float activations by name, each (h, w, c)."""


@dataclass(frozen=True)
class CachePlan:
    """How much of a run's activations the cache will hold.

    Attributes:
        record_bytes: Bytes of each record, in order.
        held: How many of the first records fit; the rest is recomputed every epoch.
        bound_bytes: What the user allows, or the disk leaves.
    """

    record_bytes: tuple[int, ...]
    held: int
    bound_bytes: int

    @property
    def total_bytes(self) -> int:
        return sum(self.record_bytes)

    @property
    def held_bytes(self) -> int:
        return sum(self.record_bytes[: self.held])

    def describe(self) -> str:
        """Return one line for the start of a run."""
        total = f"{self.total_bytes / 2**30:.2f} GiB"
        if self.held == len(self.record_bytes):
            return f"activation cache: {self.held} records, {total}"
        return (
            f"activation cache: {self.held} of {len(self.record_bytes)} records fit in "
            f"{self.bound_bytes / 2**30:.2f} GiB (all need {total}); the rest is recomputed every epoch"
        )


def cache_root() -> Path:
    """Return the folder of all caches: $SURGERY_CACHE, else the user's cache directory."""
    given = os.environ.get("SURGERY_CACHE")
    return Path(given) if given else user_cache_path("surgery") / "activations"


def digest_modules(modules: list[nn.Module]) -> str:
    """Return a sha256 over all parameters and buffers, so that other weights get another cache."""
    digest = hashlib.sha256()
    for module in modules:
        for key, tensor in module.state_dict().items():
            digest.update(f"{key}{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


class ActivationCache:
    """Records on disk, one file each, written aside and renamed, so that a killed run leaves none half.

    Args:
        key: Everything the records depend on besides image and view; plain values.
        bound_gib: Bound on the bytes of all caches together, GiB.
        root: Folder of all caches; None is `cache_root()`.
    """

    def __init__(self, key: dict[str, Any], bound_gib: float, root: Path | None = None) -> None:
        self.root = root or cache_root()
        self.bound_bytes = int(bound_gib * 2**30)
        text = json.dumps(key, sort_keys=True)
        self.folder = self.root / hashlib.sha256(text.encode()).hexdigest()[:NAME_DIGITS]
        with _disk_full(self.folder):
            self._lock: int | None = _hold(self.folder)
            (self.folder / KEY).write_text(text + "\n", "utf-8")
        os.utime(self.folder)  # the order of eviction
        _remove_leftovers(self.folder)
        self._memory: dict[str, Record] | None = None

    def plan(self, names: list[str], record_bytes: list[int]) -> CachePlan:
        """Return which records fit into the bound and the free disk; drops caches nobody uses.

        Args:
            names: Names of the records, the most useful first.
            record_bytes: Estimated bytes of each.
        """
        needed = sum(record_bytes)
        others = self._evict(max(0, self.bound_bytes - needed))
        sizes = zip(names, record_bytes, strict=True)
        mine = sum(size for name, size in sizes if self._path(name).exists())
        free = int(shutil.disk_usage(self.root).free * FREE_DISK_SHARE) + mine
        bound = min(max(0, self.bound_bytes - others), free)
        held = used = 0
        for size in record_bytes:
            if used + size > bound:
                break
            used, held = used + size, held + 1
        if used <= MEMORY_BYTES:
            self._memory = {}
        return CachePlan(tuple(record_bytes), held, bound)

    def holds(self, name: str) -> bool:
        """Return whether the record is there and as long as its header says."""
        if self._memory is not None and name in self._memory:
            return True
        try:
            with safe_open(self._path(name), framework="pt"):
                return True
        except (FileNotFoundError, SafetensorError, OSError):
            return False

    def put(self, name: str, record: Record) -> None:
        """Write a record.

        Raises:
            DiskFullError: If there is no room; nothing half-written stays.
        """
        path = self._path(name)
        aside = path.with_suffix(f".{os.getpid()}.part")
        try:
            with _disk_full(self.folder):
                save_file({key: tensor.contiguous() for key, tensor in record.items()}, aside)
                with aside.open("rb") as file:
                    os.fsync(file.fileno())  # a rename may reach the disk before what it names
                aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)

    def get(self, name: str) -> Record | None:
        """Return a record, or None if it is missing or damaged (a damaged file is removed)."""
        if self._memory is not None and name in self._memory:
            return self._memory[name]
        path = self._path(name)
        try:
            with safe_open(path, framework="pt") as file:
                record = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError):
            path.unlink(missing_ok=True)
            return None
        if self._memory is not None:
            self._memory[name] = record
        return record

    def close(self) -> None:
        """Let other runs drop this cache when they need the room."""
        if self._lock is not None:
            os.close(self._lock)
        self._lock, self._memory = None, None

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"

    def _evict(self, room_bytes: int) -> int:
        """Remove the least recently opened caches of others until they take no more than the room.

        Returns:
            Bytes of those that remain since other runs hold them, or since there is room.
        """
        others = [path for path in self.root.iterdir() if _is_cache(path) and path != self.folder]
        used = {path: _disk_use(path) for path in others}
        for path in sorted(others, key=lambda path: used[path][1]):
            if sum(size for size, _ in used.values()) <= room_bytes:
                break
            if _remove_unused(path):
                del used[path]
        return sum(size for size, _ in used.values())


def pack(activation: Tensor) -> Tensor:
    """Return one image's activation as stored: (c, h, w) float -> (h, w, c) half, clipped, on the CPU."""
    return to_half(activation).movedim(0, -1).contiguous().cpu()


def to_half(activation: Tensor) -> Tensor:
    """Return half floats, clipped to the finite ones; bfloat16 cannot hold the bound itself."""
    return activation.detach().float().clamp(-HALF_MAX, HALF_MAX).half()


def unpack(stored: list[Tensor], device: torch.device) -> Tensor:
    """Return a batch from stored activations: n × (h, w, c) half -> (n, c, h, w) float, channels last."""
    batch = torch.stack(stored).to(device, non_blocking=True).float()  # (n, h, w, c)
    return batch.movedim(-1, 1)  # (n, h, w, c) -> (n, c, h, w), channels-last in memory


@contextlib.contextmanager
def _disk_full(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        if not full and "No space left" not in str(error):
            raise
        raise DiskFullError(
            f"{folder}: the disk is full while activations are cached",
            "Free some room, point SURGERY_CACHE at a larger disk, or lower --cache-gib (0 turns the "
            "cache off); then repeat the command with --resume.",
        ) from error


def _hold(folder: Path) -> int:
    """Make the folder and hold its lock, so that no other run removes it."""
    lock = folder / LOCK
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # removed just now by another run
            handle = os.open(lock, os.O_RDWR | os.O_CREAT)
            fcntl.flock(handle, fcntl.LOCK_SH)
            if lock.exists() and os.fstat(handle).st_ino == lock.stat().st_ino:
                return handle
            os.close(handle)


def _is_cache(folder: Path) -> bool:
    """Return whether a folder is a cache of a run; whatever else lies in the root is somebody's own."""
    named = re.fullmatch(rf"[0-9a-f]{{{NAME_DIGITS}}}", folder.name) is not None
    return named and any((folder / held).is_file() for held in (KEY, LOCK))


def _remove_unused(folder: Path) -> bool:
    """Remove a cache that no run holds; return whether it is gone."""
    try:
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT)
    except OSError:
        return not folder.exists()
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


def _disk_use(folder: Path) -> tuple[int, float]:
    """Return the bytes in a folder and when it was last changed; files may vanish meanwhile."""
    total, changed = 0, 0.0
    with contextlib.suppress(OSError):
        changed = folder.stat().st_mtime
        for path in folder.iterdir():
            with contextlib.suppress(OSError):
                total += path.stat().st_size
    return total, changed


def _remove_leftovers(folder: Path) -> None:
    """Remove what processes that are gone had begun to write."""
    for path in folder.glob("*.part"):
        owner = path.suffixes[-2].lstrip(".") if len(path.suffixes) > 1 else ""
        if not (owner.isdecimal() and Path(f"/proc/{owner}").exists()):
            path.unlink(missing_ok=True)


class Fillable(Protocol):
    """What has a cache of its own."""

    plan: CachePlan | None

    def fill(self, progress: Callable[[int, int], None]) -> None:
        """Run what is frozen once for each record that is missing; `progress` is told (done, in all)."""


class Cached(Protocol):
    """One feed, or several that are used together."""

    @property
    def parts(self) -> Sequence[Fillable]:
        """The feeds, each with a cache of its own."""


def fill_cache(feed: Cached, report: Reporter) -> None:
    """Fill the caches of a feed and show how far it is."""
    for part in feed.parts:
        if part.plan is None:
            continue
        report.line(part.plan.describe())
        with report.task("caching activations") as task:

            def show(done: int, records: int, task: Task = task) -> None:
                task.update(done, records)
                raise_if_requested()

            part.fill(show)
