"""Images that are unlike the training images, kept on disk for `surgery adapt` where that is asked for."""

from __future__ import annotations

import hashlib
import io
import os
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from PIL import Image

from surgery.artifact import disk
from surgery.artifact.errors import StoreError, SurgeryError
from surgery.artifact.spool import list_spooled, spool_folder, spool_root

from .access import log
from .metrics import Metrics
from .settings import Settings

MAX_WAITING = 64
"""Images that may wait to be written; further ones are dropped."""
MAX_WAITING_BYTES = 64 * 2**20
"""Memory that they may hold, as they were sent."""
SAY_AGAIN_S = 60.0
"""Seconds between two lines of the log about images that could not be written."""
SUFFIXES = {
    "JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp", "TIFF": ".tif",
    "GIF": ".gif",
}  # fmt: skip
_ASIDE = ".aside-"


@dataclass(frozen=True)
class Novel:
    """An image that waits to be written."""

    name: str
    """Of the model that it is novel to."""
    data: bytes
    """As it was sent."""


class Spool:
    """One thread that writes novel images, so that no request waits for the disk.

    Each model has a folder, which several processes may share: whoever writes holds its lock, and bounds what
    all of them have written. Nothing but the image is kept, and nothing at all unless `collect` is set.

    Args:
        settings: Whether, where, how novel and how many.
        metrics: What is counted.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.root = spool_root(settings.models, settings.spool)
        self._collect = settings.collect
        self._below = settings.collect_below
        self._most_images = settings.spool_images
        self._most_bytes = int(settings.spool_mib * 2**20)
        self._metrics = metrics
        self._waiting: deque[Novel] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._stopped = False
        self._said = -SAY_AGAIN_S
        self._thread = threading.Thread(target=self._work, name="spool", daemon=True)

    def start(self) -> None:
        if self._collect:
            log.info("novel images (below %g) are kept in %s", self._below, self.root)
            self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Write what waits and end the thread, or leave it after so long."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def offer(self, name: str, data: bytes, novelty: float | None) -> None:
        """Keep an image if it is novel and that is wanted. Never blocks and never raises."""
        if not self._collect or novelty is None or novelty >= self._below:
            return
        with self._changed:
            full = len(self._waiting) >= MAX_WAITING or self._bytes + len(data) > MAX_WAITING_BYTES
            if not full:
                self._waiting.append(Novel(name, data))
                self._bytes += len(data)
                self._changed.notify()
        if full:
            self._metrics.spooled(name, "dropped")

    def _work(self) -> None:
        for name in disk.list_entries(self.root):
            with suppress(OSError, SurgeryError):  # such as lost+found, which names no model
                sizes = _sizes(list_spooled(spool_folder(self.root, name)))
                self._metrics.spool_holds(name, len(sizes), sum(sizes.values()))
        while True:
            with self._changed:
                while not self._waiting and not self._stopped:
                    self._changed.wait()
                if not self._waiting:
                    return
                novel = self._waiting.popleft()
                self._bytes -= len(novel.data)
            try:
                outcome = self._keep(novel)
            except (OSError, SurgeryError) as error:  # a full disk, or a folder of somebody else's
                outcome = "failed"
                self._say(error)
            except Exception as error:  # whatever was forgotten here, the thread must live
                outcome = "failed"
                self._say(error)
            self._metrics.spooled(novel.name, outcome)

    def _keep(self, novel: Novel) -> str:
        """Write an image and make room for it; return what became of it."""
        if len(novel.data) > self._most_bytes:
            return "dropped"
        folder = spool_folder(self.root, novel.name)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.is_symlink():
            raise StoreError(f"{folder}: is a link", "Let SURGERY_SPOOL name the folder that it leads to.")
        digest = hashlib.sha256(novel.data).hexdigest()
        with disk.locked(folder):
            for entry in disk.list_entries(folder, links=True):
                if entry.startswith(_ASIDE):  # of a process that died
                    (folder / entry).unlink(missing_ok=True)
            kept = list_spooled(folder)
            known = any(path.stem.endswith(digest) for path in kept)
            if not known:
                kept.append(_write(folder, novel.data, digest))
            images, size = self._prune(kept)
        self._metrics.spool_holds(novel.name, images, size)
        return "known" if known else "kept"

    def _prune(self, kept: list[Path]) -> tuple[int, int]:
        """Remove the oldest beyond the bounds; return how many images and bytes are left."""
        sizes = _sizes(kept)
        images, size = len(sizes), sum(sizes.values())
        for path in sizes:
            if images <= self._most_images and size <= self._most_bytes:
                break
            path.unlink(missing_ok=True)
            images, size = images - 1, size - sizes[path]
        return images, size

    def _say(self, error: Exception) -> None:
        now = time.monotonic()
        if now - self._said >= SAY_AGAIN_S:
            self._said = now
            log.warning("novel images cannot be kept in %s (%s); answers go on", self.root, error)


def _sizes(images: list[Path]) -> dict[Path, int]:
    """Return the bytes of each image; one that somebody has deleted meanwhile is passed over."""
    sizes = {}
    for path in images:
        with suppress(FileNotFoundError):
            sizes[path] = path.stat().st_size
    return sizes


def _write(folder: Path, data: bytes, digest: str) -> Path:
    """Write an image aside, for this user alone, and rename it; return its path."""
    # Microseconds: images that one process writes, in turn, have moments of their own.
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    path = folder / f"{moment}-{digest}{_suffix(data)}"
    aside = folder / f"{_ASIDE}{digest}"
    try:
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        aside.replace(path)
    except BaseException:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise
    return path


def _suffix(data: bytes) -> str:
    """Return the ending of an image's format, which readers of folders know images by."""
    with Image.open(io.BytesIO(data)) as image:
        return SUFFIXES[image.format or ""]
