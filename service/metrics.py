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
        self._rollouts = {
            kind: Counter(f"surgery_{kind}", text, ("model", "version", "outcome"), registry=registry)
            for kind, text in (
                ("shadow", "Images for a candidate: agreed, differed, failed, dropped"),
                ("canary", "Requests for a candidate: answered, refused, failed"),
            )
        }

    def answered(self, served: Served, pixels: int, batch: int, seconds: Mapping[str, float]) -> None:
        """Count one image that was answered."""
        name, version = served.manifest.name, str(served.manifest.version)
        for step, value in seconds.items():
            self._steps.labels(name, version, step).observe(value)
        self._batches.labels(name, version).observe(batch)
        self._pixels.labels(name, version).inc(pixels)

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
