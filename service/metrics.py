"""What is counted, for Prometheus. Every label has few values, whatever clients send."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

if TYPE_CHECKING:
    from .rollout import Rollout
    from .served import Served

SHARED = "PROMETHEUS_MULTIPROC_DIR"
"""Where BentoML has all of a server's processes count together."""
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
BATCHES = (1, 2, 4, 8, 16, 32, 64)
NOVELTIES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


class Metrics:
    """The counters of one service.

    Args:
        waiting: Returns how many images wait for a network.
        at_work: Returns how many requests are in the building.
    """

    def __init__(self, waiting: Callable[[], int], at_work: Callable[[], int]) -> None:
        self._registry = registry = CollectorRegistry()
        self._gauges = (
            (Gauge("surgery_waiting", "Images that wait for a network", registry=registry,
                   multiprocess_mode="livesum"), waiting),
            (Gauge("surgery_at_work", "Requests that are read, wait or are answered", registry=registry,
                   multiprocess_mode="livesum"), at_work),
            (Gauge("surgery_resident_memory_bytes", "Memory of each process", registry=registry,
                   multiprocess_mode="liveall"), _resident_bytes),
        )  # fmt: skip
        self._requests = Counter(
            "surgery_requests", "Requests by path, model and status",
            ("path", "model", "version", "status"), registry=registry,
        )  # fmt: skip
        self._errors = Counter("surgery_errors", "Errors by code", ("code",), registry=registry)
        self._request_seconds = Histogram(
            "surgery_request_seconds", "Time from headers to answer", ("path",), registry=registry,
            buckets=SECONDS,
        )  # fmt: skip
        self._steps = Histogram(
            "surgery_step_seconds", "Time of each step of an image", ("model", "version", "step"),
            registry=registry, buckets=SECONDS,
        )  # fmt: skip
        self._batches = Histogram(
            "surgery_batch_size", "Images in the run of a network", ("model", "version"), registry=registry,
            buckets=BATCHES,
        )  # fmt: skip
        self._pixels = Counter(
            "surgery_pixels", "Pixels of answered images", ("model", "version"), registry=registry
        )
        self._novelty = Histogram(
            "surgery_novelty", "Probability that an image of the training's kind lies as far out",
            ("model", "version"), registry=registry, buckets=NOVELTIES,
        )  # fmt: skip
        self._spooled = Counter(
            "surgery_spool", "Novel images: kept, known, dropped, failed", ("model", "outcome"),
            registry=registry,
        )  # fmt: skip
        # Processes share a folder: whoever looked last knows best.
        self._spool_images, self._spool_bytes = (
            Gauge(f"surgery_spool_{unit}", f"What the spool holds, in {unit}", ("model",), registry=registry,
                  multiprocess_mode="mostrecent")
            for unit in ("images", "bytes")
        )  # fmt: skip
        self._rollouts = {
            kind: Counter(f"surgery_{kind}", text, ("model", "version", "outcome"), registry=registry)
            for kind, text in (
                ("shadow", "Images for a candidate: agreed, differed, failed, dropped"),
                ("canary", "Requests for a candidate: answered, refused, failed"),
            )
        }

    def answered(
        self, served: Served, pixels: int, batch: int, seconds: Mapping[str, float], novelty: float | None
    ) -> None:
        """Count one image that was answered; `novelty` is None where its version cannot tell it."""
        name, version = served.manifest.name, str(served.manifest.version)
        for step, value in seconds.items():
            self._steps.labels(name, version, step).observe(value)
        self._batches.labels(name, version).observe(batch)
        self._pixels.labels(name, version).inc(pixels)
        if novelty is not None:
            self._novelty.labels(name, version).observe(novelty)

    def spooled(self, name: str, outcome: str) -> None:
        """Count what became of a novel image."""
        self._spooled.labels(name, outcome).inc()

    def spool_holds(self, name: str, images: int, size: int) -> None:
        """Note how many images, of how many bytes, a model's spool holds."""
        self._spool_images.labels(name).set(images)
        self._spool_bytes.labels(name).set(size)

    def tried(self, rollout: Rollout, outcome: str) -> None:
        """Count what became of a request, or of an image, that a candidate was given."""
        name, version = rollout.candidate.key
        self._rollouts[rollout.plan.kind].labels(name, str(version), outcome).inc()

    def replied(self, path: str, model: str, version: str, status: int, code: str, seconds: float) -> None:
        """Count one reply; `code` is that of its error, or empty."""
        self._requests.labels(path, model, version, str(status)).inc()
        self._request_seconds.labels(path).observe(seconds)
        if code:
            self._errors.labels(code).inc()

    def exposition(self) -> tuple[bytes, str]:
        """Return all of it as Prometheus reads it, and its content type."""
        for gauge, read in self._gauges:
            gauge.set(read())
        registry = self._registry
        if SHARED in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry), CONTENT_TYPE_LATEST


def _resident_bytes() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except OSError:  # no /proc on this system
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
