"""Commands in processes of their own that are killed at a chosen moment.

The processes are forks of a server that has loaded torch and the rest once, so that each starts in no time
and none shares anything with another.
"""

from __future__ import annotations

import importlib
import itertools
import multiprocessing
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 240


def run_forked(arguments: list[str], log: Path, kill: tuple[str, int] | None = None) -> tuple[int, str]:
    """Run a command of the program and return its exit code (minus the signal) and all it printed.

    Args:
        arguments: Of `surgery`.
        log: Where its output goes.
        kill: A name of `MOMENTS` and a count: the process is killed when that happens for the n-th time.
    """
    settings = {key: value for key, value in os.environ.items() if key.startswith("SURGERY_")}
    process = _server().Process(target=_run, args=(arguments, os.getcwd(), settings, str(log), kill))
    process.start()
    process.join(TIMEOUT_S)
    alive = process.is_alive()
    if alive:
        process.kill()
        process.join()
    printed = log.read_text("utf-8")
    assert not alive, f"still running after {TIMEOUT_S} s:\n{printed}"
    return process.exitcode or 0, printed


def _server() -> Any:
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["killing_preload"])
    # The server finds modules by the path that it is started with.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    return server


def _run(
    arguments: list[str], folder: str, settings: dict[str, str], log: str, kill: tuple[str, int] | None
) -> None:
    """Be the command."""
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    os.chdir(folder)
    for key in [key for key in os.environ if key.startswith("SURGERY_")]:
        del os.environ[key]
    os.environ.update(settings)
    if kill is not None:
        arm(*kill)
    from surgery.cli import main

    code = main(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def arm(moment: str, count: int) -> None:
    """Make this process kill itself when a moment comes for the n-th time."""
    module, name, when = MOMENTS[moment]
    owner: Any = importlib.import_module(module)
    *path, last = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    real, calls = getattr(owner, last), itertools.count(1)

    def fatal(*args: Any, **options: Any) -> Any:
        if next(calls) < count:
            return real(*args, **options)
        if when == "after":
            real(*args, **options)
        elif when == "half":  # the file is there, but only its first bytes
            Path(args[1]).write_bytes(b"\x40\0\0\0\0\0\0\0{")
        sys.stderr.flush()
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("unreachable")

    setattr(owner, last, fatal)
    if moment in ("step", "pair"):  # a checkpoint after every step, as if each took an hour
        importlib.import_module("surgery.train.engine").time = SimpleNamespace(  # type: ignore[attr-defined]
            monotonic=itertools.count(0.0, 3600.0).__next__
        )


MOMENTS = {
    "cache": ("surgery.train.cache", "save_file", "half"),
    "cached": ("surgery.train.cache", "save_file", "after"),
    "step": ("surgery.train.supervised", "Supervised.learn", "after"),
    "pair": ("surgery.adapt.rule", "Adaptation.learn", "after"),
    "epoch": ("surgery.train.engine", "save_checkpoint", "before"),
    "flush": ("surgery.train.checkpoint", "os.fsync", "before"),
    "export": ("surgery.deliver.package", "export_onnx", "after"),
    "parity": ("surgery.deliver.package", "check_parity", "after"),
    "report": ("surgery.report.page", "write_report", "after"),
    "seal": ("surgery.artifact.manifest", "Manifest.save", "after"),
    "finish": ("surgery.train.run", "Run.finish", "before"),
    "name": ("surgery.artifact.store", "Path.rename", "before"),
}
"""What happens: module, function, and whether the kill comes before it, after it or half-way."""
