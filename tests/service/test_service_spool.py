"""Novel images on disk: as they were sent, within bounds, once each, and none unless that is asked for."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient
from tiny_models import RED, add_classifier, plain, png

from service import spool as spooling
from service.metrics import Metrics
from service.settings import Settings
from service.spool import Spool
from surgery.artifact import disk
from surgery.artifact.novelty import Gaussian, HeldOut, write_novelty
from surgery.artifact.spool import list_spooled
from surgery.artifact.store import Store

GREY = plain((128, 128, 128))
"""What the tiny classifier knows: an embedding in which red, green and blue are equal."""


def grey(level: int) -> bytes:
    return plain((level, level, level))


def statistics(folder: Path, known: int = 99) -> None:
    """Write statistics by which every grey is common, and red is farther out than all known."""
    mean = np.full(3, 3**-0.5, np.float32)
    gaussian = Gaussian(mean, np.zeros((0, 3), np.float32), np.zeros(0), 1e4)
    held_out = HeldOut(np.linspace(1, 3, known), np.full((2, 3), 128, np.float32))
    write_novelty(folder, gaussian, {"fp32": held_out})


def counted(metrics: Metrics, outcome: str) -> float:
    text = metrics.exposition()[0].decode()
    lines = [line for line in text.splitlines() if line.startswith("surgery_spool_total") and outcome in line]
    return float(lines[0].split()[-1]) if lines else 0.0


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(lambda: 0, lambda: 0)


@pytest.fixture
def keep(tmp_path: Path, metrics: Metrics) -> Callable[..., list[Path]]:
    """Return a function that offers images to a spool of its own settings, and gives what it then holds."""

    def run(*images: bytes, novelty: float | None = 0.01, **fields: Any) -> list[Path]:
        chosen = {"collect": True, "spool": tmp_path / "spool", "models": tmp_path / "models"} | fields
        spool = Spool(Settings(**chosen), metrics)
        spool.start()
        for data in images:
            spool.offer("cars", data, novelty)
        spool.stop(30)
        return list_spooled(tmp_path / "spool" / "cars")

    return run


def test_an_image_is_kept_as_it_was_sent_for_its_owner_alone(keep: Callable[..., list[Path]]) -> None:
    (path,) = keep(RED)
    assert path.read_bytes() == RED
    assert path.suffix == ".png"
    assert path.stem.endswith(hashlib.sha256(RED).hexdigest())
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)


@pytest.mark.parametrize(
    "fields",
    [{"collect": False}, {"novelty": 0.05}, {"novelty": None}, {"novelty": 0.03, "collect_below": 0.02}],
)
def test_nothing_is_kept_unless_it_is_asked_for_and_novel(
    keep: Callable[..., list[Path]], tmp_path: Path, fields: dict[str, Any]
) -> None:
    assert keep(RED, **fields) == []
    assert not (tmp_path / "spool").exists()


def test_the_same_image_is_kept_once(keep: Callable[..., list[Path]], metrics: Metrics) -> None:
    assert len(keep(RED, RED, GREY)) == 2
    assert len(keep(RED)) == 2  # another process, or a later start
    assert (counted(metrics, "kept"), counted(metrics, "known")) == (2, 2)


def test_the_newest_are_kept_within_the_count(keep: Callable[..., list[Path]]) -> None:
    images = [grey(level) for level in range(7)]
    assert [path.read_bytes() for path in keep(*images, spool_images=3)] == images[-3:]


def test_the_newest_are_kept_within_the_bytes(keep: Callable[..., list[Path]], metrics: Metrics) -> None:
    images = [grey(level) for level in range(100, 105)]
    room = sum(map(len, images[-2:])) + 10
    kept = keep(*images, spool_mib=room / 2**20)
    assert [path.read_bytes() for path in kept] == images[-2:]
    rng = np.random.default_rng(0)
    large = png(rng.integers(0, 256, (64, 64, 3)).astype(np.uint8))
    assert keep(large, spool_mib=room / 2**20) == kept  # would take the place of all, and not fit either
    assert counted(metrics, "dropped") == 1


def test_bounds_hold_for_what_others_wrote_and_other_files_stay(
    keep: Callable[..., list[Path]], tmp_path: Path
) -> None:
    keep(*(grey(level) for level in range(5)))
    folder = tmp_path / "spool" / "cars"
    (folder / "notes.txt").write_text("not ours")
    (folder / ".aside-dead").write_text("of a process that died")
    assert len(keep(RED, spool_images=2)) == 2
    assert (folder / "notes.txt").exists()
    assert not (folder / ".aside-dead").exists()


def test_several_processes_share_a_folder(tmp_path: Path, metrics: Metrics) -> None:
    settings = Settings(collect=True, spool=tmp_path / "spool", models=tmp_path / "models", spool_images=10)
    spools = [Spool(settings, metrics) for _ in range(4)]
    for spool in spools:
        spool.start()
    threads = [
        threading.Thread(target=lambda spool=spool: [spool.offer("cars", grey(k), 0.01) for k in range(20)])
        for spool in spools
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for spool in spools:
        spool.stop(30)
    kept = list_spooled(tmp_path / "spool" / "cars")
    assert len(kept) == len({path.read_bytes() for path in kept}) == 10
    assert 'surgery_spool_images{model="cars"} 10.0' in metrics.exposition()[0].decode()


def test_who_holds_the_lock_is_waited_for(tmp_path: Path, metrics: Metrics) -> None:
    folder = tmp_path / "spool" / "cars"
    folder.mkdir(parents=True)
    held = disk.lock(folder)
    spool = Spool(Settings(collect=True, spool=tmp_path / "spool"), metrics)
    spool.start()
    spool.offer("cars", RED, 0.01)
    time.sleep(0.2)
    assert list_spooled(folder) == []
    os.close(held)
    spool.stop(30)
    assert len(list_spooled(folder)) == 1


def test_a_full_disk_is_counted_and_leaves_nothing(
    keep: Callable[..., list[Path]], metrics: Metrics, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(descriptor: int, mode: str) -> Any:
        os.close(descriptor)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(spooling.os, "fdopen", full)
        assert keep(RED, GREY) == []
    assert counted(metrics, "failed") == 2
    assert list((tmp_path / "spool" / "cars").iterdir()) == []
    assert len(keep(RED)) == 1


def test_a_place_that_cannot_be_written_is_counted(
    keep: Callable[..., list[Path]], metrics: Metrics, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    assert keep(RED, spool=tmp_path / "file") == []
    assert counted(metrics, "failed") == 1


def test_a_spool_that_keeps_nothing_holds_nothing_in_memory(tmp_path: Path, metrics: Metrics) -> None:
    spool = Spool(Settings(spool=tmp_path / "spool"), metrics)
    for _ in range(spooling.MAX_WAITING + 3):
        spool.offer("cars", RED, 0.01)
    assert counted(metrics, "dropped") == 0


def test_what_is_no_spool_stops_no_count(
    tmp_path: Path, keep: Callable[..., list[Path]], metrics: Metrics
) -> None:
    for name in ("Lost+Found", "cars", "aaa..b"):
        (tmp_path / "spool" / name).mkdir(parents=True)
    keep(RED)
    keep()  # counts what is there when it starts
    assert 'surgery_spool_images{model="cars"} 1.0' in metrics.exposition()[0].decode()


def test_a_link_laid_where_an_image_is_written_is_not_followed(
    tmp_path: Path, keep: Callable[..., list[Path]]
) -> None:
    folder, victim = tmp_path / "spool" / "cars", tmp_path / "victim"
    folder.mkdir(parents=True)
    victim.write_bytes(b"mine")
    (folder / f".aside-{hashlib.sha256(RED).hexdigest()}").symlink_to(victim)
    (path,) = keep(RED)
    assert (victim.read_bytes(), path.read_bytes()) == (b"mine", RED)


def test_a_folder_that_is_a_link_is_not_written_to(
    tmp_path: Path, keep: Callable[..., list[Path]], metrics: Metrics
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "cars").symlink_to(tmp_path / "elsewhere")
    keep(RED)
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert counted(metrics, "failed") == 1


def test_an_image_deleted_meanwhile_is_no_failure(
    keep: Callable[..., list[Path]], metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    (old,) = keep(RED)

    def listed(folder: Path) -> list[Path]:
        found = list_spooled(folder)
        old.unlink(missing_ok=True)
        return found

    monkeypatch.setattr("service.spool.list_spooled", listed)
    assert len(keep(GREY)) == 1
    assert (counted(metrics, "kept"), counted(metrics, "failed")) == (2, 0)


def test_a_full_queue_drops_and_never_waits(
    tmp_path: Path, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(Settings(collect=True, spool=tmp_path / "spool"), metrics)  # whose thread does not run
    for _ in range(spooling.MAX_WAITING + 3):
        spool.offer("cars", RED, 0.01)
    assert counted(metrics, "dropped") == 3
    monkeypatch.setattr(spooling, "MAX_WAITING_BYTES", len(RED))
    other = Spool(Settings(collect=True, spool=tmp_path / "spool"), metrics)
    other.offer("cars", RED, 0.01)
    other.offer("cars", GREY, 0.01)
    assert counted(metrics, "dropped") == 4


def test_the_service_keeps_what_it_answers_as_novel(
    store: Store, serve: Callable[..., TestClient], tmp_path: Path
) -> None:
    add_classifier(store, prepare=statistics)
    client = serve(collect=True)
    files = [("image", ("a.png", GREY)), ("image", ("b.png", b"no image")), ("image", ("c.png", RED))]
    results = client.post("/predict", files=files).json()["results"]
    assert [result.get("novelty") for result in results] == [1.0, None, 0.01]
    wait_until(
        lambda: 'surgery_spool_total{model="colours",outcome="kept"} 1.0' in client.get("/metrics").text
    )
    assert [path.read_bytes() for path in list_spooled(tmp_path / "spool" / "colours")] == [RED]


def test_the_service_keeps_nothing_by_itself(
    store: Store, serve: Callable[..., TestClient], tmp_path: Path
) -> None:
    add_classifier(store, prepare=statistics)
    assert serve().post("/predict", files={"image": RED}).json()["novelty"] == 0.01
    assert "spool" not in [thread.name for thread in threading.enumerate()]
    assert not (tmp_path / "spool").exists()


def test_no_request_fails_for_a_spool_that_cannot_be_written(
    store: Store, serve: Callable[..., TestClient], tmp_path: Path
) -> None:
    add_classifier(store, prepare=statistics)
    (tmp_path / "file").touch()
    client = serve(collect=True, spool=tmp_path / "file")
    assert client.post("/predict", files={"image": RED}).status_code == 200
    wait_until(lambda: 'outcome="failed"} 1.0' in client.get("/metrics").text)


def wait_until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)
