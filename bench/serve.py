"""The service beside a bare loop, Starlette, BentoML as its guide has it, and LitServe: speed and memory.

    python -m bench.serve [--store DIR --names ants,cars] [--images DIR[,DIR]] [--clients 1,8,32]
                          [--seconds 5] [--rounds 5] [--who service,…]

Every server is started as its users start it on this machine's loopback, warmed up, and asked by `bench.load`
in short turns, while all others are stopped by a signal: what else the machine does strikes everybody alike,
and ratios are medians over the turns. The order turns round from turn to turn. All run the same ONNX file on
the same images, prepared in the same way, on the CPU; each answer must be 200 and that of the loop. Without a
store, EfficientNet-Lite0 and VGG16 with the deconv head are exported with random weights.
The peers live in an environment of their own, made on the first run.

A goal is printed beside what was reached, and fails nothing.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs

from bench.cases import Case, is_same, isolate, make_models, read_cases
from bench.common import ROOT, publish, run_command
from bench.environment import make_environment
from bench.load import form_request, raw_request, run_load
from bench.servers import SERVE, Server, run_server
from surgery.artifact.store import Store

SAME = ("bentoml", "onnxruntime-gpu", "starlette", "uvicorn", "python-multipart", "pillow", "numpy")
SCRIPTS = ROOT / "bench" / "peer_scripts"
LOOP, SERVICE, EMPTY = "loop", "service", "empty bentoml"
WARM_SECONDS = 2.0
SHARES = {"segment": (0.95, 0.05), "classify": (0.85, 0.15)}
"""By task: the share of the loop's throughput to reach, and how far Starlette may be ahead."""
OVERHEAD_MS, MIB_BESIDE_THE_MODELS, START_S = 4.0, 250.0, 3.0


@dataclass(frozen=True)
class Contestant:
    """A server: how it is started, in which folder, and where it answers."""

    name: str
    command: Sequence[str]
    cwd: Path
    ready: str
    paths: dict[str, str]
    """Where it answers each task."""
    form: bool = True
    """Whether it takes an image in a form; else as base64 in JSON."""

    def requests(self, case: Case) -> list[bytes]:
        """Return a request for each image."""
        path = self.paths[case.task]
        headers = {"Accept": "image/png"} if case.task == "segment" else {}
        if self.form:
            return [form_request(path, image, headers) for image in case.images]
        bodies = [json.dumps({"image": base64.b64encode(image).decode("ascii")}) for image in case.images]
        headers["Content-Type"] = "application/json"
        return [raw_request(path, body.encode(), headers) for body in bodies]


@dataclass
class Seen:
    """What one contestant did with one case, round after round."""

    rates: dict[int, list[float]] = field(default_factory=dict)
    """Answers a second of each turn, by number of clients; the loop's are those of the same turn."""
    times: dict[int, list[float]] = field(default_factory=dict)
    """Milliseconds of each answer."""
    faults: dict[int, int] = field(default_factory=dict)
    """Answers that were no 200, or another than the loop's."""
    memory: dict[str, float] = field(default_factory=dict)
    starts: list[float] = field(default_factory=list)
    generator_ms: list[float] = field(default_factory=list)
    """Processor time of the load generator for each answer."""

    def rate(self, clients: int) -> float:
        return statistics.median(self.rates[clients])

    def rate_over(self, other: Seen, clients: int) -> float:
        """Return the median, over all turns, of the share of another's rate that was reached."""
        pairs = zip(self.rates[clients], other.rates[clients], strict=True)
        return statistics.median(mine / theirs for mine, theirs in pairs)

    def percentile(self, clients: int, share: float) -> float:
        return float(np.percentile(self.times[clients], share))

    @property
    def whole(self) -> bool:
        """Whether every answer was what it should be: only then is its speed worth comparing."""
        return bool(self.rates) and not any(self.faults.values()) and all(self.times.values())


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--store", type=Path, help="of real models; else they are made")
    parser.add_argument("--names", default="ants,cars")
    parser.add_argument("--images", default="", help="folders of images, one for each name or one for all")
    parser.add_argument("--clients", default="1,8,32")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--who", default="service,starlette,bentoml,litserve")
    home = platformdirs.user_cache_path("surgery")
    parser.add_argument("--environment", type=Path, default=home / "serve-peers")
    options = parser.parse_args()
    clients = [int(number) for number in options.clients.split(",")]
    chosen = options.who.split(",")
    peers = {*chosen} - {SERVICE}
    python = make_environment(options.environment, ("litserve",), SAME) if peers else sys.executable
    servers = [server for server in contestants(python) if server.name in chosen]
    with tempfile.TemporaryDirectory(prefix="surgery-bench-") as scratch:
        store = Store(options.store or Path(scratch) / "made")
        names = options.names.split(",") if options.store else make_models(store)
        folders = [Path(folder) for folder in options.images.split(",") if folder]
        rows: list[dict[str, Any]] = []
        goals: list[dict[str, Any]] = []
        cases = read_cases(store, names, folders)
        for number, case in enumerate(cases):
            room = Path(scratch) / f"case-{number}"
            seen = compare(case, room, servers, clients, options.seconds, options.rounds)
            rows += [row for who, what in seen.items() for row in rows_of(case, who, what)]
            goals += goals_of(case, seen)
            publish("serve", "serving: ms from request to answer", rows, goals=goals)
            show_goals(goals)
        if SERVICE in chosen:
            for precision in sorted({case.stored.manifest.precision for case in cases}):
                together = [case for case in cases if case.stored.manifest.precision == precision]
                goals += weigh(together, Path(scratch) / f"all-{precision}")
            publish("serve", "serving: ms from request to answer", rows, goals=goals)
            show_goals(goals)


def contestants(python: str) -> list[Contestant]:
    """Return every server."""
    one, two = {"classify": "/predict", "segment": "/predict"}, {"classify": "/labels", "segment": "/mask"}
    uvicorn = (python, "-m", "uvicorn", "starlette_app:app", "--port", "{port}", "--no-access-log")
    bentoml = (python, "-m", "bentoml", "serve", "bento_app:Peer", "--host", "127.0.0.1", "--port", "{port}")
    return [
        Contestant(SERVICE, SERVE, ROOT, "/readyz", one),
        Contestant("starlette", uvicorn, SCRIPTS, "/health", one),
        Contestant("bentoml", bentoml, SCRIPTS, "/readyz", two),
        Contestant("litserve", (python, "lit_app.py", "{port}"), SCRIPTS, "/health", one, form=False),
    ]


def compare(
    case: Case, room: Path, servers: list[Contestant], clients: list[int], seconds: float, rounds: int
) -> dict[str, Seen]:
    """Measure everyone in short turns, whoever is not asked standing still.

    Returns:
        What was seen by contestant, the loop first. Rates of the same place were taken within one turn.
    """
    store = isolate(case.stored, room / "models")
    (room / "images").mkdir()
    for number, image in enumerate(case.images):
        (room / "images" / f"{number:03d}").write_bytes(image)
    (room / "model.json").write_text(json.dumps(case.facts()), "utf-8")
    seen = {name: Seen() for name in (LOOP, *(server.name for server in servers))}
    if SERVICE in seen:
        measure_starts(room, rounds, seen[SERVICE], seen.setdefault(EMPTY, Seen()))
    answers = measure_loop(case, store, room, 1.0, 1, Seen())
    with ExitStack() as stack:
        running: dict[str, Server] = {}
        for server in servers:
            command = run_server(server.command, environment(room), server.ready, server.cwd)
            running[server.name] = one = stack.enter_context(command)
            requests = server.requests(case)
            list(run_load(one.port, requests, [2], seconds=WARM_SECONDS, least=2 * len(requests)))
            one.suspend()
        for turn in range(rounds):
            for number in clients:
                order: list[Contestant | None] = [None, *servers]  # None: the loop
                for server in order if turn % 2 == 0 else reversed(order):
                    who = server.name if server else LOOP
                    print(f"turn {turn + 1}: {case.what}, {number} clients, {who}", file=sys.stderr)
                    if server is None:
                        measure_loop(case, store, room, seconds, number, seen[LOOP])
                        continue
                    one = running[server.name]
                    with one.awake():
                        requests = server.requests(case)
                        points = run_load(one.port, requests, [number], seconds=seconds, least=2 * number)
                        for point in points:
                            note(case, point, answers, seen[server.name])
        for name, one in running.items():
            seen[name].memory = one.memory()
    return seen


def measure_loop(case: Case, store: Store, room: Path, seconds: float, beside: int, seen: Seen) -> list[Any]:
    """Run the loop, in the turn of so many clients; return its answers."""
    command = [sys.executable, "-m", "bench.alone", str(store.root), case.stored.ref, str(room / "images")]
    done = run_command([*command, "--seconds", str(seconds)], environment(room)).answer
    seen.rates.setdefault(beside, []).append(done["per_second"])
    seen.times.setdefault(beside, []).extend(done["ms"])
    seen.faults[beside] = 0
    masks = case.task == "segment"
    return [base64.b64decode(answer) if masks else answer for answer in done["answers"]]


def measure_starts(room: Path, rounds: int, ours: Seen, empty: Seen) -> None:
    """Start the service and one of BentoML that does nothing, with the program's own packages, in turn."""
    nothing = [*SERVE[:2], "bento_empty:Empty", *SERVE[2:]]
    for _ in range(rounds):
        with run_server(nothing, environment(SCRIPTS), "/readyz", SCRIPTS) as running:
            empty.starts.append(running.seconds)
            empty.memory = running.memory()
        with run_server(SERVE, environment(room), "/readyz") as running:
            ours.starts.append(running.seconds)


def weigh(cases: list[Case], room: Path) -> list[dict[str, Any]]:
    """Return the goals of the memory of one worker that serves every case, and was asked in turn."""
    for case in cases:
        isolate(case.stored, room / "models")
    with run_server(SERVE, environment(room), "/readyz") as running:
        for case in cases:
            path = f"/predict?model={case.stored.name}"
            requests = [raw_request(path, image, {"Content-Type": "image/jpeg"}) for image in case.images]
            list(run_load(running.port, requests, [1], seconds=WARM_SECONDS, least=len(requests)))
        found = running.memory()
    limit = sum(case.graph_mib for case in cases) + MIB_BESIDE_THE_MODELS
    wanted = f"<= models + {MIB_BESIDE_THE_MODELS:g} = {limit:.0f}"
    what = " and ".join(case.what for case in cases)
    return [
        {
            "model": what,
            "goal": f"{kind}, MiB",
            "wanted": wanted,
            "reached": found[kind],
            "met": found[kind] <= limit,
        }
        for kind in ("worker RSS", "worker PSS")
    ]


def note(case: Case, point: dict[str, Any], answers: list[Any], seen: Seen) -> None:
    """Add one point of the load generator; every answer is compared with the loop's."""
    clients = point["clients"]
    seen.rates.setdefault(clients, []).append(point["per_second"])
    seen.times.setdefault(clients, []).extend(point["ms"].get("200", []))
    wrong = sum(count for status, count in point["statuses"].items() if status != "200")
    for request, bodies in point["bodies"].items():
        decoded = map(base64.b64decode, bodies)
        wrong += sum(not is_same(case, answers[int(request)], body) for body in decoded)
    seen.faults[clients] = seen.faults.get(clients, 0) + wrong
    asked = sum(point["statuses"].values())
    seen.generator_ms.append(point["generator_cpu_s"] * 1e3 / max(1, asked))


def environment(room: Path) -> dict[str, str]:
    """Return the variables of every process: the case's store, and the peers' description of it."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("BENTOML", "SURGERY"))}
    places = {"SURGERY_MODELS": str(room / "models"), "PEER_MODEL": str(room / "model.json")}
    places["SURGERY_GRAPH_CACHE"] = str(room / "graphs")
    return {**kept, **places, "SURGERY_DEVICE": "cpu", "BENTOML_DO_NOT_TRACK": "True"}


def rows_of(case: Case, who: str, seen: Seen) -> list[dict[str, Any]]:
    """Return the rows of one contestant, one for each number of clients."""
    alone = {"start s": statistics.median(seen.starts)} if seen.starts else {}
    alone |= {f"{key} MiB": value for key, value in seen.memory.items()}
    if seen.generator_ms:
        alone["generator ms"] = statistics.mean(seen.generator_ms)
    rows = [
        {
            "model": case.what,
            "who": who,
            "clients": clients,
            "answers/s": seen.rate(clients),
            **{f"p{share}": seen.percentile(clients, share) for share in (50, 95, 99) if seen.times[clients]},
            "answers": len(seen.times[clients]),
            "faults": seen.faults[clients],
        }
        for clients in seen.rates
    ] or [{"model": case.what, "who": who}]
    rows[0] |= alone  # the process's own, once
    return rows


def goals_of(case: Case, seen: dict[str, Seen]) -> list[dict[str, Any]]:
    """Return each goal beside what was reached; left out is whose contestants did not run without a fault."""
    goals: list[dict[str, Any]] = []

    def add(goal: str, wanted: str, reached: float, met: bool | None = None) -> None:
        goals.append({"model": case.what, "goal": goal, "wanted": wanted, "reached": reached, "met": met})

    ours, loop = seen.get(SERVICE, Seen()), seen[LOOP]
    for who, what in seen.items():
        if faults := sum(what.faults.values()):
            add(f"faults of {who}", "0", faults, False)
    if not ours.whole:
        return goals
    share, behind = SHARES[case.task]
    busy = 8 if 8 in ours.rates else max(ours.rates)
    ratio = ours.rate_over(loop, busy)
    add(f"throughput at {busy} clients / loop", f">= {share}", ratio, ratio >= share)
    if 1 in ours.times:
        overhead = ours.percentile(1, 50) - loop.percentile(1, 50)
        add("p50 at 1 client - loop's, ms", f"<= {OVERHEAD_MS:g}", overhead, overhead <= OVERHEAD_MS)
    for name, peer in seen.items():
        for clients in ours.rates if name not in (SERVICE, LOOP) and peer.whole else ():
            ratio = ours.rate_over(peer, clients)
            least = 1 - behind if name == "starlette" else 1.0
            add(f"throughput at {clients} / {name}'s", f">= {least:g}", ratio, ratio >= least)
            if name != "starlette":
                ratio = ours.percentile(clients, 99) / peer.percentile(clients, 99)
                add(f"p99 at {clients} / {name}'s", "< 1", ratio, ratio < 1)
    later = statistics.median(ours.starts) - statistics.median(seen[EMPTY].starts)
    add("start to ready - empty BentoML's, s", f"<= {START_S:g}", later, later <= START_S)
    return goals


def show_goals(goals: list[dict[str, Any]]) -> None:
    """Print the goals as a table."""
    print("\n| model | goal | wanted | reached | |\n|---|---|---|---|---|")
    marks = {True: "met", False: "MISSED", None: ""}
    for row in goals:
        cells = (row["model"], row["goal"], row["wanted"], f"{row['reached']:.3g}", marks[row["met"]])
        print(f"| {' | '.join(cells)} |")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
