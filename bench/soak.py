"""Long faults on a running service: what it promises under each, and the numbers.

    python -m bench.soak [--parts damage,crowd,promote,slow,kill,stop] [--images 10000] [--seconds 60]
                         [--changes 50]

damage   thousands of damaged images: no 5xx, no crash, memory flat
crowd    500 clients against the default bound of 64: only 200, 429 and 503, and the probes answer
promote  promotions and rollbacks under load: every answer is 200 and labelled with the version that made it
slow     clients that send headers or a body at a byte a second, while others work
kill     the worker is killed: how long until there is another
stop     SIGTERM under load: everything in flight is finished

Each part starts `bentoml serve` on tiny models. It exits with 1 if a promise is broken, and says which.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.cases import make_photo
from bench.common import ROOT, publish
from bench.load import CUT, HOST, Connection, Load, drive, form_request, raw_request, read_reply, run_load
from bench.servers import SERVE, Server, run_server
from surgery.artifact.store import Store

sys.path.insert(0, str(ROOT / "tests" / "service"))

from damage import damaged
from tiny_models import RED, SCALE, add_classifier, add_segmenter

CROWD = 500
MAX_GROWTH = 0.1
"""Share by which memory may grow behind the first fifth of the damaged images."""
RECOVERY_S = 60.0
TIMEOUT_S = 5.0
"""Of requests whose body is slow."""
GOOD = form_request("/predict?model=colours", RED)


@dataclass
class Part:
    """What one part found."""

    name: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def note(self, what: str, value: Any) -> None:
        self.rows.append({"part": self.name, "what": what, "value": value})
        print(f"{self.name}: {what}: {value}", file=sys.stderr, flush=True)

    def promise(self, kept: bool, what: str) -> None:
        if not kept:
            self.broken.append(f"{self.name}: {what}")
            print(f"{self.name}: BROKEN: {what}", file=sys.stderr, flush=True)


def main() -> None:
    """Run the parts; exit with 1 if a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--changes", type=int, default=50)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    broken: list[str] = []
    for name in options.parts.split(","):
        part = Part(name)
        PARTS[name](part, options)
        rows += part.rows
        broken += part.broken
        publish("soak", "the service under faults", rows, broken=broken)
    sys.exit("\n".join(["promises broken:", *broken]) if broken else 0)


@contextmanager
def service(further: Mapping[str, str] | None = None, **settings: object) -> Iterator[tuple[Server, Store]]:
    """Serve a classifier in two versions, the first in production, and a model of masks.

    Args:
        further: Variables of the environment.
        settings: Of the service.
    """
    with tempfile.TemporaryDirectory(prefix="surgery-soak-") as folder:
        store = Store(Path(folder) / "models")
        add_classifier(store)
        add_classifier(store, scale=-SCALE)
        add_segmenter(store)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("BENTOML", "SURGERY"))}
        given = {f"SURGERY_{key.upper()}": str(value) for key, value in settings.items()}
        environment = {**kept, "SURGERY_MODELS": str(store.root), "SURGERY_DEVICE": "cpu", **given}
        environment |= further or {}
        with run_server(SERVE, environment, "/readyz") as server:
            yield server, store


@contextmanager
def load_beside(server: Server, requests: Sequence[bytes], clients: int) -> Iterator[Load]:
    """Ask all the while, from a thread; the load is whole behind the body."""
    done, load = threading.Event(), Load(clients)

    def ask() -> None:
        load.__dict__.update(
            asyncio.run(drive(server.port, requests, clients, 3600, stop=done.is_set)).__dict__
        )

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield load
    finally:
        done.set()
        thread.join()


def damage(part: Part, options: argparse.Namespace) -> None:
    """Send damaged images, in forms and as bodies, to both models."""
    statuses: Counter[int] = Counter()
    wrong: list[str] = []
    sizes: list[float] = []

    async def send(server: Server) -> None:
        images = enumerate(damaged(0, options.images))
        step = max(1, options.images // 10)

        async def sender() -> None:
            connection = Connection(server.port)
            for number, (kind, image) in images:
                path = f"/predict?model={('colours', 'cars')[number % 2]}"
                raw = {"Content-Type": "image/jpeg"}
                request = form_request(path, image) if number // 2 % 2 else raw_request(path, image, raw)
                reply = await connection.ask(request)
                statuses[reply.status] += 1
                if reply.status == CUT or reply.status >= 500:
                    wrong.append(f"{kind} (image {number}): {reply.status} {reply.body[:200]!r}")
                if number % step == 0:
                    sizes.append(server.memory()["worker RSS"])
                    part.note(f"RSS MiB after {number}", round(sizes[-1], 1))
            await connection.close()

        await asyncio.gather(*(sender() for _ in range(4)))

    with service() as (server, _):
        worker, before = server.worker().pid, ask_good(server)
        asyncio.run(send(server))
        sizes.append(server.memory()["worker RSS"])
        part.note("RSS MiB at the end", round(sizes[-1], 1))
        part.promise(server.worker().pid == worker, "the worker crashed")
        part.promise(ask_good(server) == before, "a good image got another answer afterwards")
    part.note("statuses", dict(statuses))
    part.promise(not wrong, f"{len(wrong)} images were answered with a 5xx or not at all: {wrong[:5]}")
    settled = max(sizes[: max(2, len(sizes) // 5 + 1)])
    part.promise(
        sizes[-1] <= settled * (1 + MAX_GROWTH), f"memory grew from {settled:.0f} to {sizes[-1]:.0f} MiB"
    )


def crowd(part: Part, options: argparse.Namespace) -> None:
    """Ask with many more clients than the bound; ask for /livez from another process."""
    live = raw_request("/livez", b"", method="GET")
    with service() as (server, _), ThreadPoolExecutor() as beside:
        probing = beside.submit(
            lambda: list(run_load(server.port, [live], [1], seconds=options.seconds, pause=0.05))
        )
        (point,) = run_load(server.port, [GOOD], [CROWD], seconds=options.seconds)
        (probe,) = probing.result()
    part.note("statuses", point["statuses"])
    part.note("accepted a second", round(point["per_second"], 1))
    note_times(part, "accepted", point["ms"].get("200", []))
    note_times(part, "/livez", probe["ms"].get("200", []))
    part.promise({*point["statuses"]} <= {"200", "429", "503"}, f"statuses {point['statuses']}")
    part.promise("200" in point["statuses"], "nobody was answered")
    part.promise({*probe["statuses"]} == {"200"}, f"/livez answered {probe['statuses']}")


def promote(part: Part, options: argparse.Namespace) -> None:
    """Promote and roll back while clients ask: red comes first by version 1 alone."""
    waits = []
    with service(poll_s=0.1) as (server, store), load_beside(server, [GOOD], 4) as load:
        for turn in range(2 * options.changes):
            store.rollback("colours") if turn % 2 else store.promote("colours", 2)
            wanted, started = (1 if turn % 2 else 2), time.perf_counter()
            while ask_good(server)["version"] != wanted and time.perf_counter() - started < 30:
                time.sleep(0.01)
            waits.append((time.perf_counter() - started) * 1e3)
    answers = [json.loads(body) for body in load.bodies[0]]
    told = {answer["version"]: answer["labels"][0]["label"] for answer in answers}
    statuses = Counter(sample.status for sample in load.samples)
    part.note("changes", len(waits))
    part.note("statuses", dict(statuses))
    note_times(part, "from the change to its first answer", waits)
    note_times(part, "answers", times_of(load))
    part.promise({*statuses} == {200}, f"statuses {dict(statuses)}")
    part.promise(max(waits) < 30_000, "a promotion was not taken up")
    part.promise(len(answers) == 2 and told.get(1) == "red" != told.get(2), f"answers {answers}")


def slow(part: Part, options: argparse.Namespace) -> None:
    """Hold connections open with a byte a second while others work."""
    with service(timeout_s=TIMEOUT_S, body_timeout_s=TIMEOUT_S) as (server, _):
        (alone,) = run_load(server.port, [GOOD], [4], seconds=5)
        with load_beside(server, [GOOD], 4) as load:
            ends = asyncio.run(send_slowly(server.port, 3 * TIMEOUT_S))
    note_times(part, "answers without slow clients", alone["ms"].get("200", []))
    note_times(part, "answers beside slow clients", times_of(load))
    for what, seen in ends.items():
        part.note(f"slow {what}: status and seconds", [f"{status} {after:.1f}" for status, after in seen])
    statuses = Counter(sample.status for sample in load.samples)
    part.promise({*statuses} == {200}, f"the others got {dict(statuses)}")
    late = [seen for seen in ends["bodies"] if seen[0] not in (408, CUT) or seen[1] > TIMEOUT_S + 5]
    part.promise(not late, f"slow bodies were not ended in time: {late}")


async def send_slowly(port: int, most_s: float, each: int = 8) -> dict[str, list[tuple[int | str, float]]]:
    """Send headers, and bodies, a byte a second; return how each ended, or `open`, and after how long."""
    head, body = GOOD.split(b"\r\n\r\n", 1)

    async def send(first: bytes, rest: bytes) -> tuple[int | str, float]:
        started = time.perf_counter()
        reader, writer = await asyncio.open_connection(HOST, port)
        answer = asyncio.ensure_future(read_reply(reader))
        writer.write(first)
        for byte in rest[: int(most_s)]:
            done, _ = await asyncio.wait([answer], timeout=1)
            if done:
                break
            writer.write(bytes([byte]))
        status: int | str = "open"
        if answer.done():
            status = CUT if answer.exception() else answer.result().status
        answer.cancel()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return status, time.perf_counter() - started

    headers = [send(b"", head) for _ in range(each)]
    bodies = [send(head + b"\r\n\r\n", body) for _ in range(each)]
    ends = await asyncio.gather(*headers, *bodies)
    return {"headers": list(ends[:each]), "bodies": list(ends[each:])}


def kill(part: Part, options: argparse.Namespace) -> None:
    """Kill the worker and wait for an answer of the next."""
    with service() as (server, _), load_beside(server, [GOOD], 4) as load:
        time.sleep(2)
        os.kill(server.worker().pid, signal.SIGKILL)
        killed = time.perf_counter()
        time.sleep(1)
        with contextlib.suppress(OSError):
            ask_good(server, RECOVERY_S)
        time.sleep(1)
    later = [sample for sample in load.samples if sample.started > killed and sample.status == 200]
    lost = sum(sample.status != 200 for sample in load.samples)
    part.note("requests without an answer", lost)
    recovery = min((sample.ended for sample in later), default=float("inf")) - killed
    part.note("recovery s", round(recovery, 2))
    part.promise(recovery <= RECOVERY_S, f"no answer within {RECOVERY_S:g} s")
    with service({"BENTOML_CONTAINERIZED": "True"}) as (server, _):
        os.kill(server.worker().pid, signal.SIGKILL)
        killed = time.perf_counter()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.process.wait(RECOVERY_S)
        ended, seconds = server.process.poll() is not None, time.perf_counter() - killed
    part.note("told to leave it to a supervisor: s until it ends", round(seconds, 2))
    part.promise(ended, "told to leave it to a supervisor, it did not end")


def stop(part: Part, options: argparse.Namespace) -> None:
    """Tell the server to end while it works on large images."""
    requests = [form_request("/predict?model=colours", make_photo(seed, (3000, 2000))) for seed in range(4)]
    with service() as (server, _), load_beside(server, requests, 8) as load:
        time.sleep(4)
        told = time.perf_counter()
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(60)
        ended = time.perf_counter()
    flying = Counter(s.status for s in load.samples if s.started < told - 0.05 and s.ended > told)
    part.note("in flight when told, by status", dict(flying))
    part.note(
        "asked afterwards, by status", dict(Counter(s.status for s in load.samples if s.started > told))
    )
    part.note("seconds until it ended", round(ended - told, 2))
    part.promise({*flying} == {200}, f"not all in flight was finished: {dict(flying)}")


def ask_good(server: Server, timeout_s: float = 30) -> dict[str, Any]:
    """Return the answer to the good image, without its times."""
    head = {"Content-Type": "image/png"}
    request = urllib.request.Request(f"{server.url}/predict?model=colours", RED, head, method="POST")
    with urllib.request.urlopen(request, timeout=timeout_s) as reply:
        body: dict[str, Any] = json.load(reply)
    body.pop("milliseconds")
    return body


def times_of(load: Load) -> list[float]:
    return [(sample.ended - sample.started) * 1e3 for sample in load.samples if sample.status == 200]


def note_times(part: Part, what: str, times: Sequence[float]) -> None:
    """Note percentiles of milliseconds."""
    if times:
        shares = np.percentile(times, (50, 99, 100))
        part.note(f"{what}: p50, p99, maximum ms", ", ".join(f"{value:.1f}" for value in shares))


PARTS: dict[str, Callable[[Part, argparse.Namespace], None]] = {
    "damage": damage,
    "crowd": crowd,
    "promote": promote,
    "slow": slow,
    "kill": kill,
    "stop": stop,
}


if __name__ == "__main__":
    main()
