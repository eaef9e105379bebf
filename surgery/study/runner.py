"""A study is a list of independent trainings; each is run once, by whatever process, and its answer kept."""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from surgery.artifact.errors import ConfigError
from surgery.study.parts import write_file
from surgery.train.interrupt import raise_if_requested, stop_requested
from surgery.train.reporting import Reporter

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SCHEMA = 1
"""Raised whenever the code would answer a training otherwise: older answers are then not used."""
BACKENDS = {"loky": "", "dask": "distributed", "ray": "ray"}
"""Backends of joblib, and the package that each needs beside it. A process runs one training at a time:
torch has one random state."""

LINES_EVERY = 10
"""Where there is no terminal, progress is a line every so many trainings."""

Answer = dict[str, Any]
Key = TypeVar("Key", bound="DataclassInstance")
Given = TypeVar("Given", contravariant=True)


class RunOne(Protocol[Given]):
    """What runs one training; it must be picklable, so that other processes can."""

    def __call__(self, training: Given, folder: Path) -> Answer:
        """Return what is kept of a training, as plain values.

        Args:
            training: All its inputs.
            folder: Where checkpoints may lie meanwhile; it is removed afterwards. Its parent is the
                study's folder, which all processes share.
        """


def key_of(training: DataclassInstance) -> str:
    """Return the name of a training: a digest over its inputs, their kind and the version of the code."""
    values = {"schema": SCHEMA, "kind": type(training).__name__, **dataclasses.asdict(training)}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:24]


def find_answer(training: DataclassInstance, folder: Path) -> Answer | None:
    """Return the answer that a study's folder holds, or None."""
    path = folder / f"{key_of(training)}.json"
    if not path.exists():
        return None
    answer: Answer = json.loads(path.read_text("utf-8"))["answer"]
    return answer


def run_all(
    trainings: Sequence[Key],
    run_one: RunOne[Key],
    folder: Path,
    report: Reporter,
    jobs: int = 1,
    backend: str = "loky",
) -> dict[Key, Answer]:
    """Run the trainings that have no answer yet, and return all answers, in the order of the list.

    The answer of each is written as it ends, aside and renamed. So a study that was stopped goes on, one
    that is widened uses what it has, and two that share trainings share their answers.

    Args:
        trainings: Frozen dataclasses of plain values.
        run_one: Runs one.
        folder: The study's folder; with a cluster all machines must see it under the same path.
        report: Where progress is shown.
        jobs: Trainings at a time; each has its share of the cores.
        backend: One of `BACKENDS`; dask and ray use the cluster that the environment names.

    Raises:
        ConfigError: If there is no such backend, or it is not installed.
        KeyboardInterrupt: When the user stops the study; what is done is kept.
    """
    check_backend(backend)
    folder.mkdir(parents=True, exist_ok=True)
    wanted = list(dict.fromkeys(trainings))
    missing = [each for each in wanted if find_answer(each, folder) is None]
    known = len(wanted) - len(missing)
    if missing:
        ahead = _run_here if jobs == 1 and backend == "loky" else _run_side_by_side
        _follow(ahead(missing, run_one, folder, jobs, backend), known, len(wanted), jobs, report)
    return {each: found for each in wanted if (found := find_answer(each, folder)) is not None}


def check_backend(backend: str) -> None:
    """Refuse a backend that is not there.

    Raises:
        ConfigError: With how to install it.
    """
    if backend not in BACKENDS:
        raise ConfigError(f"--backend {backend!r}: there is {', '.join(BACKENDS)}", "Choose one.")
    package = BACKENDS[backend]
    if package and importlib.util.find_spec(package) is None:
        name = "'dask[distributed]'" if backend == "dask" else f"'{backend}[default]'"
        raise ConfigError(f"--backend {backend}: {package} is not installed", f"pip install {name}")


def answer_one(training: Key, run_one: RunOne[Key], folder: Path, threads: int | None = None) -> str:
    """Run one training and write its answer; returns its key."""
    import torch

    name = key_of(training)
    room, before = folder / f"{name}.run", torch.get_num_threads()
    with _alone(training, folder):
        if find_answer(training, folder) is not None:
            return name
        room.mkdir(exist_ok=True)
        try:
            if threads:
                torch.set_num_threads(threads)
            started = time.monotonic()
            answer = run_one(training, room)
            values = {"training": dataclasses.asdict(training), "seconds": time.monotonic() - started}
            write_file(folder / f"{name}.json", json.dumps(values | {"answer": answer}) + "\n")
        finally:
            torch.set_num_threads(before)
    return name


@contextmanager
def _alone(training: DataclassInstance, folder: Path) -> Iterator[None]:
    """Keep other studies from a training meanwhile: they wait for its answer.

    What a training needs while it runs goes with the lock once there is an answer: whoever had waited for
    the file that is removed, or makes another one, finds the answer.
    """
    name = key_of(training)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        if find_answer(training, folder) is not None:
            shutil.rmtree(folder / f"{name}.run", ignore_errors=True)
            path.unlink(missing_ok=True)
        os.close(descriptor)


def _run_here(
    trainings: Sequence[Key], run_one: RunOne[Key], folder: Path, jobs: int, backend: str
) -> Iterator[str]:
    for each in trainings:
        yield answer_one(each, run_one, folder)


def _run_side_by_side(
    trainings: Sequence[Key], run_one: RunOne[Key], folder: Path, jobs: int, backend: str
) -> Iterator[str]:
    from joblib import Parallel, delayed

    threads = max(1, (os.cpu_count() or 1) // jobs) if backend == "loky" else None
    # joblib would say so of a study that the user stops, on top of what is said anyway.
    warnings.filterwarnings("ignore", message=".*tasks which were still being processed")
    with _chosen(backend, jobs):
        pool = Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch="2*n_jobs")
        yield from pool(delayed(answer_one)(each, run_one, folder, threads) for each in trainings)


@contextmanager
def _chosen(backend: str, jobs: int) -> Iterator[None]:
    """Let joblib use a backend: its own, or a cluster that is there already."""
    from joblib import parallel_config

    if backend == "dask":
        from distributed import Client, get_client

        try:
            client, ours = get_client(), False
        except ValueError:
            address = os.environ.get("DASK_SCHEDULER_ADDRESS")
            if not address:
                raise ConfigError(
                    "--backend dask: no cluster is named",
                    "Start `dask scheduler`, `dask worker ADDRESS --nthreads 1`; set DASK_SCHEDULER_ADDRESS.",
                ) from None
            client, ours = Client(address), True
        try:
            if any(threads > 1 for threads in client.nthreads().values()):
                raise ConfigError(
                    "--backend dask: a worker of the cluster runs several trainings in one process",
                    "Start workers of one thread: `dask worker ADDRESS --nworkers N --nthreads 1`.",
                )
            with parallel_config("dask", n_jobs=-1 if jobs == 1 else jobs, client=client):
                yield
        finally:
            if ours:
                client.close()
        return
    if backend == "ray":
        from ray.util.joblib import register_ray

        register_ray()
    with parallel_config(backend, n_jobs=-1 if backend == "ray" and jobs == 1 else jobs):
        yield


def _follow(done: Iterator[str], known: int, total: int, jobs: int, report: Reporter) -> None:
    """Show how far the trainings are, and stop where the user asks for it."""
    started, ended = time.monotonic(), 0
    if known:
        report.line(f"{known} of {total} trainings are there already")
    with report.task("trainings") as task:
        try:
            for _ in done:
                ended += 1
                left = total - known - ended
                running = min(jobs, left)
                seconds = (time.monotonic() - started) / ended * left
                said = f"trainings: {known + ended} done, {running} running, {left - running} left"
                if report.console.is_terminal:
                    task.update(known + ended, total, running=running, minutes_left=seconds / 60)
                elif ended == 1 or ended % LINES_EVERY == 0 or not left:
                    report.line(f"{said}, {seconds / 60:.1f} min to go")
                if left:
                    raise_if_requested()
        except Exception as error:
            if stop_requested():  # workers of the same terminal were stopped by the same Ctrl-C
                raise KeyboardInterrupt from error
            raise
