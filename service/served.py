"""One version of the store, loaded and proved to run."""

from __future__ import annotations

import hashlib
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from surgery.artifact.errors import ConfigError, StoreError
from surgery.artifact.image import Pixels
from surgery.artifact.manifest import Manifest
from surgery.artifact.session import Floats, Session, open_session
from surgery.artifact.store import StoredVersion

PROBE_SIDE = 64
"""Side in pixels of the self-test's image where the manifest states no size."""


@dataclass(frozen=True, eq=False)
class Served:
    """One version, ready to answer. Requests hold on to it, so a swap never takes it from them."""

    manifest: Manifest
    session: Session
    sha256: str
    """Of the graph that runs."""
    precision: str
    """Of the graph that runs."""
    gate: threading.Lock = field(default_factory=threading.Lock)
    """One inference at a time: onnxruntime spreads each over all cores already."""

    @property
    def key(self) -> tuple[str, int]:
        return self.manifest.name, self.manifest.version


class Metered:
    """A session that runs one inference at a time and notes how long it did.

    `answer_image` is the one path from image to answer; with this in the session's place
    inference is bounded and timed apart from the wait for it, without a second path.
    """

    def __init__(self, served: Served) -> None:
        self._served = served
        self.device = served.session.device
        self.inference_s = 0.0

    def run(self, images: Pixels) -> tuple[Floats, Floats]:
        with self._served.gate:
            start = time.perf_counter()
            outputs = self._served.session.run(images)
            self.inference_s = time.perf_counter() - start
        return outputs


def load_version(stored: StoredVersion, device: str, threads: int) -> Served:
    """Open the graph that the manifest names for the device, and run it once.

    Args:
        stored: The version.
        device: auto, cpu or cuda.
        threads: Threads inside one inference; 0 leaves it to onnxruntime.

    Raises:
        StoreError: If the graph is missing, altered, or answers another shape than the manifest's.
        ConfigError: If `device` is cuda and there is none.
        Exception: What onnxruntime raises on a graph that it cannot open.
    """
    manifest = stored.manifest
    if device == "auto" and manifest.graph_file("cuda") != manifest.graph_file("cpu"):
        try:
            return _load_graph(stored, "cuda", threads)
        except ConfigError:
            return _load_graph(stored, "cpu", threads)
    return _load_graph(stored, device, threads)


def _load_graph(stored: StoredVersion, device: str, threads: int) -> Served:
    manifest = stored.manifest
    kind = "cpu" if device == "auto" else device  # `auto` comes here with one graph for both
    path, sha256 = stored.graph(kind), stored.sha256(kind)
    _check_sha256(path, sha256)
    session = open_session(path, device=device, threads=threads)
    _self_test(session, manifest)
    return Served(manifest, session, sha256, manifest.precision_on(kind))


def _check_sha256(path: Path, wanted: str) -> None:
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror})", RESTORE) from error
    if found != wanted:
        raise StoreError(
            f"{path}: altered or half-copied (sha256 {found[:12]}…, the manifest says {wanted[:12]}…)",
            RESTORE,
        )


def _self_test(session: Session, manifest: Manifest) -> None:
    """Run one black image: it proves the graph, and takes the slow first run off the clients."""
    height = manifest.input.height or PROBE_SIDE
    width = manifest.input.width or PROBE_SIDE
    logits, _ = session.run(np.zeros((1, height, width, 3), np.uint8))
    dimensions = 2 if manifest.task == "classify" else 4
    if logits.ndim != dimensions or logits.shape[:2] != (1, manifest.output.logits):
        raise StoreError(
            f"{manifest.name}@{manifest.version}: its graph answers logits of shape"
            f" {logits.shape}, which do not fit its {manifest.output.logits} output(s)",
            "Export the model again.",
        )


RESTORE = "Restore the version from a copy, or remove it (`surgery models remove NAME VERSION`)."
