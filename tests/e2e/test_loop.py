"""The loop: serve, keep what is novel, find drift, adapt to it, prove, promote, and be at home again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from running import TINY, Surgery

from surgery.artifact.spool import list_spooled
from surgery.artifact.store import Store
from surgery.data.samples.cars import write_cars

ROOT = Path(__file__).resolve().parents[2]
SCENE = (96, 64)
TRAINING = (*TINY, "--strategy", "random", "--head", "fpn", "--classes", "car")
# A network that has learnt nothing yet is not surprised by anything.
LEARNT = ("--epochs", "10", "--batch-size", "4")


@contextmanager
def serving(folder: Path, **settings: str) -> Iterator[str]:
    """Run `bentoml serve` on a free port; gives its address once it is ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "bentoml", "serve", "--host", "127.0.0.1", "--port", str(port)]
    environment = os.environ | {"BENTOML_HOME": str(folder / "home"), "SURGERY_DEVICE": "cpu"} | settings
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until(lambda: is_ready(url), (folder / "log").read_text)
            yield url
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=2).status_code == 200
    except httpx.TransportError:
        return False


def wait_until(done: Any, otherwise: Any = lambda: "it never came to be") -> None:
    end = time.monotonic() + 120
    while not done():
        assert time.monotonic() < end, otherwise()
        time.sleep(0.1)


def ask(url: str, path: Path) -> dict[str, Any]:
    answer = httpx.post(f"{url}/predict", files={"image": path.read_bytes()}, timeout=60)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_model_follows_its_streets_into_the_night(rooms: Path, surgery: Surgery) -> None:
    day = write_cars(rooms / "day", n_train=48, n_val=40, size=SCENE)
    others = write_cars(rooms / "other-day", n_train=20, n_val=2, size=SCENE, seed=5) / "train" / "images"
    night = write_cars(rooms / "night", n_train=24, n_val=2, size=SCENE, seed=6, domain="night")
    streets = sorted((night / "train" / "images").iterdir())
    assert surgery("finetune", day, "--name", "cars", *TRAINING, *LEARNT).code == 0
    spool = rooms / "spool" / "cars"

    with serving(rooms, SURGERY_COLLECT="true", SURGERY_COLLECT_BELOW="0.1") as url:
        by_day = [ask(url, path)["novelty"] for path in sorted(others.iterdir())[:8]]
        kept_by_day = len(list_spooled(spool))
        by_night = [ask(url, path)["novelty"] for path in streets]
        assert sorted(by_day)[4] > 0.1
        assert sorted(by_night)[12] == 1 / 41  # as novel as any of 40 images held out can tell
        novel = sum(novelty < 0.1 for novelty in [*by_day, *by_night])
        wait_until(lambda: len(list_spooled(spool)) == novel)
        assert {path.read_bytes() for path in list_spooled(spool)[kept_by_day:]} <= {
            path.read_bytes() for path in streets
        }

        assert surgery("drift", "cars", others, "--json").answer["drift"] is False
        found = surgery("drift", "cars", night / "train" / "images", "--json").answer
        assert (found["drift"], found["next"].split()[:3]) == (True, ["surgery", "adapt", "cars@1"])

        adapted = surgery("adapt", "cars", "--target-spool", "--method", "adabn", "--json").answer
        assert (adapted["version"], adapted["production"], adapted["parent"]) == (2, False, "cars@1")
        assert adapted["parity"]["passed"]
        assert adapted["adaptation"]["target"]["images"] == novel
        assert "target_spool: false" in (Store().resolve("cars@2").path / "recipe.yaml").read_text()
        assert ask(url, streets[0])["version"] == 1
        assert surgery("models", "promote", "cars", 2).code == 0
        wait_until(lambda: ask(url, streets[0])["version"] == 2)
        # Streets at night that nobody has seen: no longer novel, no drift, and neither are those by day.
        later = write_cars(rooms / "later", n_train=24, n_val=2, size=SCENE, seed=9, domain="night")
        later_streets = later / "train" / "images"
        at_home = [ask(url, path)["novelty"] for path in sorted(later_streets.iterdir())]
        assert sorted(at_home)[12] > 0.1
        again = surgery("drift", "cars@2", later_streets, "--json").answer
        assert (again["drift"], again["compared_with"]) == (False, "target")
        assert surgery("drift", "cars@2", others, "--json").answer["drift"] is False
        assert surgery("drift", "cars@1", later_streets, "--json").answer["drift"] is True
        assert 'surgery_novelty_count{model="cars",version="2"}' in httpx.get(f"{url}/metrics").text
