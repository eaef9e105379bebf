"""Servers of a benchmark: started on a free port, waited for, weighed, and ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.common import ROOT

MIB = 2**20
BENTOML = str(Path(sys.executable).parent / "bentoml")
SERVE = (BENTOML, "serve", "--host", "127.0.0.1", "--port", "{port}")
"""How users start the service, in the root of the repository."""


@dataclass
class Server:
    """A server that runs."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    seconds: float = 0.0
    """From its start to its first good answer."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def processes(self) -> list[psutil.Process]:
        """Return what it runs in."""
        own = psutil.Process(self.process.pid)
        return [own, *own.children(recursive=True)]

    def suspend(self) -> None:
        """Stop all of it until it is awake: it takes no time from others."""
        for process in self.processes():
            process.suspend()

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Let it run for as long as the body does."""
        for process in self.processes():
            process.resume()
        try:
            yield
        finally:
            self.suspend()

    def worker(self) -> psutil.Process:
        """Return the largest of its children, or itself: that one holds the model."""
        own, *children = self.processes()
        return max(children or [own], key=lambda process: process.memory_info().rss)

    def memory(self) -> dict[str, float]:
        """Return MiB of the worker, resident and with shared pages divided, and of all processes."""
        worker = self.worker().memory_full_info()
        total = sum(process.memory_full_info().pss for process in self.processes())
        return {"worker RSS": worker.rss / MIB, "worker PSS": worker.pss / MIB, "all PSS": total / MIB}


@contextmanager
def run_server(
    command: Sequence[str], environment: Mapping[str, str], ready: str, cwd: Path = ROOT
) -> Iterator[Server]:
    """Run a server until the body is done.

    Args:
        command: `{port}` in it becomes a free port.
        environment: Its variables; BentoML's home is a fresh folder.
        ready: The path that answers 200 once it can serve.
        cwd: Where it runs.
    """
    # Without it a benchmark that is told to end would leave its servers behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="serve-") as home:
        port, log = free_port(), Path(home) / "log"
        started = time.perf_counter()
        with log.open("wb") as output:
            process = subprocess.Popen(
                [word.replace("{port}", str(port)) for word in command],
                cwd=cwd, env={**environment, "BENTOML_HOME": home}, start_new_session=True,
                stdout=output, stderr=output,
            )  # fmt: skip
        server = Server(process, port, log)
        try:
            wait_for(server, ready)
            server.seconds = time.perf_counter() - started
            yield server
        finally:
            end(process)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(server: Server, path: str, timeout_s: float = 300) -> None:
    """Return when a path answers 200."""
    end_at = time.monotonic() + timeout_s
    while time.monotonic() < end_at and server.process.poll() is None:
        try:
            with urllib.request.urlopen(f"{server.url}{path}", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.02)
    sys.exit(f"no answer at {server.url}{path}; the server said:\n{server.log.read_text('utf-8', 'replace')}")


def end(process: subprocess.Popen[bytes], timeout_s: float = 30) -> None:
    """End a server and all that it started."""
    if process.poll() is None:
        for each in psutil.Process(process.pid).children(recursive=True):
            each.resume()  # it may be suspended
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGCONT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout_s)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
