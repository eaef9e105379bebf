"""One version of the store, loaded and proved to run."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from surgery.artifact.disk import sha256 as sha256_of
from surgery.artifact.errors import ConfigError, StoreError, SurgeryError
from surgery.artifact.graph import GraphCache, available_cores
from surgery.artifact.image import Pixels
from surgery.artifact.manifest import Manifest
from surgery.artifact.novelty import Gauge, read_gauge
from surgery.artifact.selftest import check_selftest, read_selftest
from surgery.artifact.session import Session, open_session
from surgery.artifact.store import StoredVersion

from .pace import Narrow, Pace, learn_pace

PROBE_SIDE = 64
"""Side in pixels of the self-test's image where the manifest states no size."""


@dataclass(frozen=True, eq=False)
class Served:
    """One version, ready to answer. Requests hold on to it, so a swap never takes it from them."""

    manifest: Manifest
    session: Session
    sha256: str
    """Of the graph that runs."""
    precision: str = "fp32"
    """Of the graph that runs."""
    mib: float = 0.0
    """Size of that graph's file."""
    pace: Pace = field(default_factory=Pace)
    """How images that wait are run."""
    narrow: Narrow | None = None
    """The graph on a share of the cores, where `pace` has lanes."""
    gauge: Gauge | None = None
    """What tells the novelty of images, where the version can tell it."""

    @property
    def key(self) -> tuple[str, int]:
        return self.manifest.name, self.manifest.version

    @property
    def explains(self) -> bool:
        """Whether it can say what an answer rests on."""
        return self.manifest.task == "segment" or self.session.explains


@dataclass(frozen=True)
class Engine:
    """How networks are run."""

    device: str = "auto"
    """auto, cpu or cuda."""
    threads: int = 0
    """Threads inside one inference; 0 leaves it to onnxruntime."""
    max_batch: int = 1
    """Most images in one run."""
    lanes: int = 1
    """Most runs side by side on the CPU; more need the cache, through which they share their weights."""
    cache: GraphCache | None = None
    """Where the graphs' optimised forms are kept, if they are to be."""


def load_version(stored: StoredVersion, engine: Engine) -> Served:
    """Open the graph that the manifest names for the device, run it, and learn how to run what waits.

    Raises:
        StoreError: If the graph is missing, altered, or answers another shape than the manifest's.
        ConfigError: If the device is cuda and there is none.
        Exception: What onnxruntime raises on a graph that it cannot open.
    """
    manifest, device = stored.manifest, engine.device
    if device == "auto" and manifest.graph_file("cuda") != manifest.graph_file("cpu"):
        try:
            return _load_graph(stored, replace(engine, device="cuda"))
        except ConfigError:
            return _load_graph(stored, replace(engine, device="cpu"))
    return _load_graph(stored, engine)


def _load_graph(stored: StoredVersion, engine: Engine) -> Served:
    manifest, cache = stored.manifest, engine.cache
    kind = "cpu" if engine.device == "auto" else engine.device  # `auto` comes here with one graph for both
    path, sha256 = stored.graph(kind), stored.sha256(kind)
    _check_sha256(path, sha256)
    session = open_session(path, engine.device, engine.threads, cache, sha256)
    precision = manifest.precision_on(kind)
    gauge = read_gauge(stored.path, precision)
    try:
        image = _self_test(session, manifest, stored.path, precision)
    except SurgeryError:
        if cache is None:
            raise
        cache.drop(sha256)  # the fault may be that of the optimised form
        cache = None
        session = open_session(path, engine.device, engine.threads)
        image = _self_test(session, manifest, stored.path, precision)
    cores = engine.threads or available_cores()
    lanes = min(engine.lanes, cores)
    if cache is None or session.device != "cpu" or not cache.holds(sha256):
        lanes = 1

    def open_narrow() -> Session:
        # Runs of one session share its threads, and bring one each.
        graph = cache.reopen(sha256, cores - lanes + 1) if cache is not None else None
        return session if graph is None else Session(path, "cpu", graph)

    pace = learn_pace(session, image, engine.max_batch, lanes, open_narrow, lanes == cores)
    _, embedding = session.run(image[None], release=True)  # what learning took may never be needed
    if gauge is not None:
        gauge.novelty(embedding[0])  # statistics of another graph are found out now, not by every request
    narrow = Narrow(open_narrow) if pace.lanes > 1 else None
    mib = path.stat().st_size / 2**20
    return Served(manifest, session, sha256, precision, mib, pace, narrow, gauge)


def _check_sha256(path: Path, wanted: str) -> None:
    try:
        found = sha256_of(path)
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror})", RESTORE) from error
    if found != wanted:
        raise StoreError(
            f"{path}: altered or half-copied (sha256 {found[:12]}…, the manifest says {wanted[:12]}…)",
            RESTORE,
        )


def _self_test(session: Session, manifest: Manifest, folder: Path, precision: str) -> Pixels:
    """Ask the network what was asked when it was made, and return that image.

    It also takes the slow first run off the clients. A version without a stored answer is asked a black
    image, of whose answer no more than the shape is known.
    """
    asked = read_selftest(folder)
    if asked is not None:
        check_selftest(asked, session, precision)
        return asked[0]
    height = manifest.input.height or PROBE_SIDE
    width = manifest.input.width or PROBE_SIDE
    image: Pixels = np.zeros((height, width, 3), np.uint8)
    logits, _ = session.run(image[None])
    dimensions = 2 if manifest.task == "classify" else 4
    if logits.ndim != dimensions or logits.shape[:2] != (1, manifest.output.logits):
        raise StoreError(
            f"{manifest.name}@{manifest.version}: its graph answers logits of shape"
            f" {logits.shape}, which do not fit its {manifest.output.logits} output(s)",
            "Export the model again.",
        )
    return image


RESTORE = "Restore the version from a copy, or remove it (`surgery models remove NAME VERSION`)."
