"""Load on a server of this machine: clients that keep their connection and ask again once they are answered.

    python -m bench.load PORT FOLDER [--clients 1,8,32] [--seconds 10] [--least 0] [--pause 0]

Each file of FOLDER is a whole HTTP/1.1 request, sent as it is; the clients send them in turn. It runs in a
process of its own, so that it never waits for the server's interpreter, and prints one JSON object for each
number of clients. A point ends after its seconds, or later if there are not `--least` answers yet, but never
after five times as long. With `--pause` a client waits so many seconds before it asks again.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import itertools
import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.common import ROOT

HOST = "127.0.0.1"
CUT = 0
"""Status of a request whose connection ended without an answer."""
PATIENCE_S = 90.0
"""Seconds after which a request without an answer counts as cut."""
MOST_BODIES = 16
"""Answers to one request that are kept, of those that differ."""
_VOLATILE = re.compile(rb'"milliseconds": ?\{[^}]*\}')


@dataclass(frozen=True)
class Reply:
    """What a server answered; status `CUT` where it did not."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Sample:
    """One request: which, what became of it, and when (`time.perf_counter`)."""

    request: int
    status: int
    started: float
    ended: float


@dataclass
class Load:
    """What one number of clients saw."""

    clients: int
    samples: list[Sample] = field(default_factory=list)
    bodies: dict[int, set[bytes]] = field(default_factory=dict)
    """The different bodies of 200s by request, without the times in them."""

    def note(self, request: int, reply: Reply, started: float) -> None:
        self.samples.append(Sample(request, reply.status, started, time.perf_counter()))
        if reply.status == 200:
            known = self.bodies.setdefault(request, set())
            if len(known) < MOST_BODIES:
                known.add(_VOLATILE.sub(b'"milliseconds":0', reply.body))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values: milliseconds by status, and answers of 200 a second."""
        good = [sample for sample in self.samples if sample.status == 200]
        times: dict[int, list[float]] = {}
        for sample in self.samples:
            times.setdefault(sample.status, []).append((sample.ended - sample.started) * 1e3)
        begun = min((sample.started for sample in self.samples), default=0.0)
        seconds = max((sample.ended for sample in good), default=begun) - begun
        return {
            "clients": self.clients,
            "seconds": seconds,
            "per_second": len(good) / seconds if seconds else 0.0,
            "statuses": dict(Counter(sample.status for sample in self.samples)),
            "ms": times,
            "bodies": {
                request: [base64.b64encode(body).decode("ascii") for body in sorted(bodies)]
                for request, bodies in self.bodies.items()
            },
        }


class Connection:
    """One client's connection, opened when it is needed and kept while the server keeps it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes, patience_s: float = PATIENCE_S) -> Reply:
        """Send a request and return its answer; a cut connection is one too."""
        try:
            async with asyncio.timeout(patience_s):
                return await self._ask(request)
        except (OSError, EOFError, ValueError, TimeoutError):
            await self.close()
            return Reply(CUT)

    async def _ask(self, request: bytes) -> Reply:
        if self._streams is None:
            self._streams = await asyncio.open_connection(HOST, self.port)
        reader, writer = self._streams
        writer.write(request)
        reply = await read_reply(reader)
        if reply.headers.get("connection", "").lower() == "close":
            await self.close()
        return reply

    async def close(self) -> None:
        if self._streams is not None:
            writer, self._streams = self._streams[1], None
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def read_reply(reader: asyncio.StreamReader) -> Reply:
    """Read one response.

    Raises:
        EOFError: If the connection ends before it does.
        ValueError: If it is no HTTP response.
    """
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    if not version.startswith("HTTP/1."):
        raise ValueError(f"no response: {first[:80]!r}")
    status = int(rest[:3])
    pairs = (line.split(":", 1) for line in lines if line)
    headers = {key.strip().lower(): value.strip() for key, value in pairs}
    if headers.get("transfer-encoding", "").lower() == "chunked":
        parts = []
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            parts.append(await reader.readexactly(size))
            await reader.readexactly(2)
        await reader.readuntil(b"\r\n")
        return Reply(status, headers, b"".join(parts))
    return Reply(status, headers, await reader.readexactly(int(headers.get("content-length", 0))))


def form_request(
    path: str, image: bytes, headers: Mapping[str, str] | None = None, field: str = "image"
) -> bytes:
    """Return a whole POST of a form that holds one file, as curl and browsers send it."""
    mark = secrets.token_hex(16)
    disposition = f'Content-Disposition: form-data; name="{field}"; filename="image.jpg"'
    head = f"--{mark}\r\n{disposition}\r\nContent-Type: image/jpeg\r\n\r\n"
    body = head.encode() + image + f"\r\n--{mark}--\r\n".encode()
    return raw_request(
        path, body, {"Content-Type": f"multipart/form-data; boundary={mark}", **(headers or {})}
    )


def raw_request(
    path: str, body: bytes, headers: Mapping[str, str] | None = None, method: str = "POST"
) -> bytes:
    """Return a whole request."""
    given = {"Host": HOST, "Content-Length": str(len(body)), **(headers or {})}
    lines = "".join(f"{key}: {value}\r\n" for key, value in given.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


async def drive(
    port: int,
    requests: Sequence[bytes],
    clients: int,
    seconds: float,
    least: int = 0,
    pause_s: float = 0.0,
    stop: Callable[[], bool] = lambda: False,
) -> Load:
    """Let clients ask for some seconds; return what they saw.

    Args:
        port: The server's, on this machine.
        requests: Whole requests, sent in turn.
        clients: How many ask at once.
        seconds: How long; five times as long while there are fewer answers than `least`.
        least: Answers wanted.
        pause_s: How long each waits between an answer and its next request.
        stop: Ends it earlier once it says so.
    """
    load, begun = Load(clients), time.perf_counter()
    turns = itertools.count()

    def over() -> bool:
        passed = time.perf_counter() - begun
        enough = len(load.samples) >= least or passed >= 5 * seconds
        return stop() or (passed >= seconds and enough)

    async def ask_on() -> None:
        connection = Connection(port)
        while not over():
            index, started = next(turns) % len(requests), time.perf_counter()
            reply = await connection.ask(requests[index])
            load.note(index, reply, started)
            # A server that is gone is not to be run at without a breath.
            await asyncio.sleep(max(pause_s, 0.05) if reply.status == CUT else pause_s)
        await connection.close()

    await asyncio.gather(*(ask_on() for _ in range(clients)))
    return load


def run_load(port: int, requests: Sequence[bytes], clients: Sequence[int], **options: Any) -> Iterator[Any]:
    """Drive a server from a process of its own; yield the JSON of each number of clients as it comes."""
    with tempfile.TemporaryDirectory(prefix="load-") as folder:
        for number, request in enumerate(requests):
            (Path(folder) / f"{number:05d}.http").write_bytes(request)
        command = [sys.executable, "-m", "bench.load", str(port), folder]
        command += ["--clients", ",".join(map(str, clients))]
        for name, value in options.items():
            command += [f"--{name}", str(value)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                yield json.loads(line)
        if process.returncode:
            sys.exit(f"the load generator failed with exit code {process.returncode}")


def main() -> None:
    """Drive a server with each number of clients; print what they saw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("port", type=int)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clients", default="1,8,32")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--least", type=int, default=0)
    parser.add_argument("--pause", type=float, default=0)
    options = parser.parse_args()
    requests = [path.read_bytes() for path in sorted(options.folder.iterdir())]
    for clients in map(int, options.clients.split(",")):
        before = sum(os.times()[:2])
        load = asyncio.run(
            drive(options.port, requests, clients, options.seconds, options.least, options.pause)
        )
        values = load.to_dict() | {"generator_cpu_s": sum(os.times()[:2]) - before}
        print(json.dumps(values), flush=True)


if __name__ == "__main__":
    main()
