"""Seconds and memory of `surgery --help`, of the service's start, and of the service with VGG16.

    python -m bench.startup [--runs 5]

The served model is VGG16 with the deconv head and random weights: they weigh what trained ones do.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.common import ROOT, clean_room, publish, surgery
from bench.servers import MIB, SERVE, run_server

HEAVY = ("torch", "timm", "onnxruntime", "albumentations", "cv2", "numpy", "bentoml")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    rows = [measure_help(options.runs)]
    with clean_room() as environment, tempfile.TemporaryDirectory() as scratch:
        rows.append(measure_service("service, empty store", environment, "/livez", options.runs))
        make_model(environment, Path(scratch))
        rows.append(measure_service("service, VGG16 car masks", environment, "/readyz", options.runs))
    loaded = modules_of_help()
    publish("startup", "start-up", rows, help_loads=loaded)
    print(f"heavy modules that `surgery --help` loads: {', '.join(loaded) or 'none'}")


def measure_help(runs: int) -> dict[str, Any]:
    """Time `surgery --help` as a whole process."""
    seconds = []
    for _ in range(runs + 1):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "surgery", "--help"], cwd=ROOT, check=True, capture_output=True)
        seconds.append(time.perf_counter() - started)
    probe = "import resource, surgery.cli as c; c.main(['--help']); "
    probe += "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    out = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, check=True, capture_output=True, text=True)
    peak = int(out.stdout.split()[-1]) * 1024
    return {"what": "surgery --help", "seconds (median)": statistics.median(seconds[1:]), "MiB": peak / MIB}


def modules_of_help() -> list[str]:
    """Return the heavy modules that `surgery --help` loads."""
    probe = (
        f"import sys, surgery.cli as c; c.main(['--help']); print(*[m for m in {HEAVY} if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, check=True, capture_output=True, text=True)
    return [word for word in out.stdout.splitlines()[-1].split() if word in HEAVY]


def make_model(environment: dict[str, str], scratch: Path) -> None:
    """Put a VGG16 mask model into the store."""
    command = [sys.executable, "-m", "surgery", "data", "sample", "cars", str(scratch / "cars")]
    sizes = ["--n-train", "2", "--n-val", "1", "--size", "96x64"]
    subprocess.run([*command, *sizes], cwd=ROOT, env=environment, check=True, capture_output=True)
    surgery(
        environment, "finetune", scratch / "cars", "--name", "cars", "--classes", "car",
        "--weights", "random", "--epochs", 1,
    )  # fmt: skip


def measure_service(what: str, environment: dict[str, str], path: str, runs: int) -> dict[str, Any]:
    """Start `bentoml serve`, wait until `path` answers 200, and weigh its processes together."""
    seconds, resident, proportional = [], [], []
    for _ in range(runs):
        with run_server(SERVE, environment, path) as server:
            seconds.append(server.seconds)
            tree = server.processes()
            resident.append(sum(process.memory_info().rss for process in tree))
            proportional.append(sum(process.memory_full_info().pss for process in tree))
    return {
        "what": what,
        "seconds (median)": statistics.median(seconds),
        "MiB": statistics.median(resident) / MIB,
        "MiB, shared pages once": statistics.median(proportional) / MIB,
        "processes": len(tree),
    }


if __name__ == "__main__":
    main()
