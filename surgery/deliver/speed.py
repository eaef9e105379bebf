"""How fast each precision of a version is on the devices at hand, and so which is served where."""

from __future__ import annotations

import statistics
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from surgery.artifact.errors import ConfigError
from surgery.artifact.image import Pixels
from surgery.artifact.session import Session, open_session
from surgery.train.interrupt import raise_if_requested
from surgery.train.reporting import Reporter

DEVICES = ("cpu", "cuda")
WARM_RUNS = 2
RUNS = 15
"""Runs of each graph that are timed, unless the time is up before."""
LEAST_RUNS = 3
MAX_SECONDS = 30.0
LEAST_GAIN = 0.05
"""Share of the time that a precision must save to be served in place of fp32: below, it is noise."""


def measure_speed(
    graphs: Mapping[str, Path], device: str, inputs: Sequence[Pixels], report: Reporter
) -> dict[str, Any] | None:
    """Time graphs on a device, run in turn so that what else the machine does strikes them alike.

    Args:
        graphs: File of each precision.
        device: `cpu` or `cuda`.
        inputs: Prepared images (h, w, 3), taken in turn.
        report: Where progress is shown.

    Returns:
        `milliseconds`: the median of each precision for one image, network alone; `runs` of each. None where
        the device cannot be opened.
    """
    try:
        sessions = {name: open_session(path, device) for name, path in graphs.items()}
    except ConfigError:
        return None
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for session in sessions.values():
        for _ in range(WARM_RUNS):
            _time(session, inputs[0])
    started = time.perf_counter()
    with report.task(f"timing {', '.join(graphs)} on {device}") as task:
        for done in range(RUNS):
            for name, session in sessions.items():
                times[name].append(_time(session, inputs[done % len(inputs)]))
            raise_if_requested()
            task.update(done + 1, RUNS)
            if done + 1 >= LEAST_RUNS and time.perf_counter() - started > MAX_SECONDS:
                break
    medians = {name: round(statistics.median(each) * 1e3, 3) for name, each in times.items()}
    return {"milliseconds": medians, "runs": len(times["fp32"])}


def _time(session: Session, image: Pixels) -> float:
    start = time.perf_counter()
    session.run(image[None])  # (h, w, 3) -> (1, h, w, 3)
    return time.perf_counter() - start


def choose_served(speed: Mapping[str, Any], precisions: Collection[str]) -> dict[str, str]:
    """Return the precision to serve on each kind of device: the fastest, where that was measured.

    On a GPU that was not at hand fp16 is served if it is there: GPUs are what it is made for. int8 is not, as
    onnxruntime computes it on a GPU in float with conversions between.

    Args:
        speed: Of each device that was measured, what `measure_speed` returned.
        precisions: Those that may be served, fp32 among them.
    """
    served = {}
    for device in DEVICES:
        if device not in speed:
            served[device] = "fp16" if device == "cuda" and "fp16" in precisions else "fp32"
            continue
        times = {name: speed[device]["milliseconds"][name] for name in precisions}
        fastest = min(times, key=lambda name: times[name])
        gains = times[fastest] <= (1 - LEAST_GAIN) * times["fp32"]
        served[device] = fastest if gains else "fp32"
    return served
