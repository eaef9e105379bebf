"""What every benchmark shares: where the data is, running the program, the table and the JSON."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

OUT = Path(__file__).parent / "out"
ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Finished:
    """A command that ran: the JSON on the last line of its stdout, its stderr, and what it took."""

    answer: dict[str, Any]
    log: str
    seconds: float
    peak_mib: float
    """Peaks of its processes added up; pages that they share count in each."""


def data_folder(argument: str | None, name: str) -> Path:
    """Return the folder of a data set: the argument, else $SURGERY_DATA/<name>."""
    if argument:
        return Path(argument)
    root = os.environ.get("SURGERY_DATA")
    if not root:
        sys.exit(f"say where the data is: --data FOLDER, or SURGERY_DATA=… with {name}/ in it")
    return Path(root) / name


@contextmanager
def clean_room() -> Iterator[dict[str, str]]:
    """Give an environment whose store, runs and activation cache are empty and go away afterwards."""
    with tempfile.TemporaryDirectory(prefix="surgery-bench-") as folder:
        places = {"SURGERY_MODELS": "models", "SURGERY_RUNS": "runs", "SURGERY_CACHE": "cache"}
        yield os.environ | {key: str(Path(folder) / value) for key, value in places.items()}


def surgery(environment: dict[str, str], *arguments: object) -> Finished:
    """Run a command of the program with --json; its stderr goes to the terminal as it comes."""
    command = [sys.executable, "-m", "surgery", *map(str, arguments), "--json"]
    print("$ surgery", *command[3:], file=sys.stderr, flush=True)
    return run_command(command, environment)


def run_command(command: Sequence[str], environment: dict[str, str]) -> Finished:
    """Run a command that prints JSON, and watch it; its stderr goes to the terminal as it comes."""
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+", encoding="utf-8") as stdout:
        process = subprocess.Popen(
            command, env=environment, cwd=ROOT, text=True, stdout=stdout, stderr=subprocess.PIPE
        )
        assert process.stderr is not None
        log = []
        with peak_memory(process.pid) as peaks:
            for line in process.stderr:
                log.append(line)
                print("  ", line, end="", file=sys.stderr, flush=True)
            code = process.wait()
        stdout.seek(0)
        lines = stdout.read().splitlines()
    if code != 0:
        sys.exit(f"the command failed with exit code {code}")
    seconds = time.perf_counter() - started
    return Finished(json.loads(lines[-1]), "".join(log), seconds, max(peaks, default=0) / 1024)


@contextmanager
def peak_memory(pid: int, every_s: float = 0.5) -> Iterator[list[int]]:
    """Collect the peaks of resident memory, KiB, of a process and its children, while they run."""
    peaks: list[int] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(every_s):
            try:
                process = psutil.Process(pid)
                peaks.append(sum(_peak_kib(p.pid) for p in [process, *process.children(recursive=True)]))
            except (psutil.Error, OSError):
                continue  # it ended just now

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peaks
    finally:
        ended.set()
        watcher.join()


def _peak_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text("utf-8")
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0)


def machine() -> dict[str, Any]:
    """Return what the numbers were measured on."""
    import torch

    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": platform.processor() or platform.machine(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def publish(name: str, title: str, rows: Sequence[dict[str, Any]], **facts: Any) -> None:
    """Print a table of rows and write rows and facts to bench/out/<name>.json."""
    OUT.mkdir(exist_ok=True)
    path = OUT / f"{name}.json"
    values = {"title": title, "machine": machine(), "rows": list(rows), **facts}
    path.write_text(json.dumps(values, indent=2) + "\n", "utf-8")
    print(f"\n{title}")
    if rows:
        keys = list(dict.fromkeys(key for row in rows for key in row))
        cells = [[_cell(row.get(key)) for key in keys] for row in rows]
        widths = [max(len(key), *(len(line[i]) for line in cells)) for i, key in enumerate(keys)]
        print("| " + " | ".join(key.ljust(w) for key, w in zip(keys, widths, strict=True)) + " |")
        print("|" + "|".join("-" * (w + 2) for w in widths) + "|")
        for line in cells:
            print("| " + " | ".join(text.ljust(w) for text, w in zip(line, widths, strict=True)) + " |")
    print(f"written to {path}", flush=True)


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
