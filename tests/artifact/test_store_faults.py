"""What goes wrong around a store never shows half a version or leads out of it."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tiny_graph import Add, make_manifest, write_graph

from surgery.artifact import disk
from surgery.artifact.errors import DiskFullError, StoreError
from surgery.artifact.store import Store, no_room

EVIL = [
    "../../etc",
    "..",
    ".",
    "",
    "/etc",
    "a/b",
    "a\\b",
    "..%2f..%2fetc",
    "%2e%2e",
    ".hidden",
    ".staging-1",
    "-rf",
    "cars\n",
    "cars\0",
    "cars ",
    "~",
    "．．",  # full-width stops, which some systems fold to dots
    "cärs",
    "a" * 65,
]

ENTRIES: dict[str, Callable[[Store, str], Any]] = {
    "list_versions": lambda store, name: store.list_versions(name),
    "aliases": lambda store, name: store.aliases(name),
    "resolve": lambda store, name: store.resolve(name),
    "resolve version": lambda store, name: store.resolve(f"{name}@1"),
    "resolve alias": lambda store, name: store.resolve(f"cars@{name}"),
    "next_version": lambda store, name: store.next_version(name),
    "stage": lambda store, name: store.stage(name).__enter__(),
    "promote": lambda store, name: store.promote(name, 1),
    "rollback": lambda store, name: store.rollback(name),
    "remove": lambda store, name: store.remove(name, 1),
    "verify": lambda store, name: store.verify(name, 1),
    "rollout": lambda store, name: store.rollout(name),
    "start_rollout": lambda store, name: store.start_rollout(name, 1, "shadow", 0.5),
    "end_rollout": lambda store, name: store.end_rollout(name),
}


@pytest.mark.parametrize("name", EVIL)
@pytest.mark.parametrize("entry", ENTRIES)
def test_evil_names_are_refused(store: Store, add: Add, entry: str, name: str) -> None:
    add()
    before = sorted(store.root.parent.rglob("*"))
    with pytest.raises(StoreError):
        ENTRIES[entry](store, name)
    assert sorted(store.root.parent.rglob("*")) == before


@pytest.mark.parametrize("version", ["../../etc", "1/../../x", "", 0, -1, True, 1.5, "1\n", None])
@pytest.mark.parametrize("entry", ["promote", "remove", "verify"])
def test_evil_versions_are_refused(store: Store, add: Add, entry: str, version: Any) -> None:
    add()
    with pytest.raises(StoreError):
        getattr(store, entry)("cars", version)
    assert store.list_versions("cars") == [1]


@pytest.mark.parametrize("entry", [key for key in ENTRIES if key != "resolve alias"])
def test_links_are_not_followed_out_of_the_store(store: Store, add: Add, tmp_path: Path, entry: str) -> None:
    other = Store(tmp_path / "other")
    add()
    store.root.rename(other.root)
    store.root.mkdir()
    (store.root / "cars").symlink_to(other.root / "cars")
    with pytest.raises(StoreError, match="symbolic link"):
        ENTRIES[entry](store, "cars")
    assert store.list_names() == []
    assert other.list_versions("cars") == [1]


def test_manifest_cannot_point_out_of_its_version(store: Store, add: Add, tmp_path: Path) -> None:
    stored = add()
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "0.png").write_bytes(b"a picture")
    previews = stored.path / "previews"
    (previews / "0.png").unlink()
    previews.rmdir()
    previews.symlink_to(secret)
    assert store.list_versions("cars") == []


def test_links_cannot_be_committed(store: Store) -> None:
    with store.stage("cars") as staging:
        (staging.path / "model.onnx").symlink_to("/etc/hostname")
        with pytest.raises(StoreError, match="plain files"):
            staging.commit(make_manifest())


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from tiny_graph import make_manifest
from surgery.artifact import disk, store as module
from surgery.artifact.store import Store

def die(*_args, **_kw):
    os.kill(os.getpid(), signal.SIGKILL)

point = sys.argv[2]
with Store(sys.argv[1]).stage("cars") as staging:
    (staging.path / "model.onnx").write_bytes(b"graph")
    if point == "writing": die()
    if point == "manifest": module.Manifest.save = die
    if point == "sync": disk.sync_folder = die
    if point == "aliases": Path.replace = die
    if point == "rename": Path.rename = die
    staging.commit(make_manifest())
die()
"""


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("point", ["writing", "manifest", "sync", "aliases", "rename", "after"])
def test_kill_9_leaves_no_half_version(store: Store, add: Add, point: str, first: bool) -> None:
    if not first:
        add()
    code = KILLED.format(tests=str(Path(__file__).parent))
    run = subprocess.run([sys.executable, "-c", code, str(store.root), point], check=False)
    assert run.returncode == -signal.SIGKILL
    before = [] if first else [1]
    whole = point == "after" or (point == "aliases" and not first)
    listed = [*before, len(before) + 1] if whole else before
    assert store.list_versions("cars") == listed
    assert store.list_names() == (["cars"] if listed else [])
    for version in listed:
        store.verify("cars", version)
    stored = add()  # the next writer finds no obstacle, and cleans up
    assert stored.version == len(listed) + 1
    assert store.resolve("cars").version == 1
    left = sorted(path.name for path in (store.root / "cars").iterdir())
    assert [name for name in left if name.startswith(".staging")] == []


HOLDS = """
import sys, time
from surgery.artifact.store import Store
with Store(sys.argv[1]).stage("cars") as staging:
    (staging.path / "x").write_text("x")
    print(staging.path, flush=True)
    time.sleep(60)
"""


def test_only_the_dead_are_cleaned_up_after(store: Store) -> None:
    command = [sys.executable, "-c", HOLDS, str(store.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        path = Path(other.stdout.readline().strip())
        with store.stage("cars"):
            assert (path / "x").exists()
        other.kill()
        other.wait()
    assert (path / "x").exists()
    with store.stage("cars"):
        assert not path.exists()


def test_racing_threads_get_different_numbers(store: Store, add: Add) -> None:
    with ThreadPoolExecutor(8) as pool:
        versions = list(pool.map(lambda _: add().version, range(24)))
    assert sorted(versions) == list(range(1, 25)) == store.list_versions("cars")
    assert store.aliases("cars") == {"production": 1}


RACES = """
import sys
sys.path.insert(0, {tests!r})
from tiny_graph import make_manifest
from surgery.artifact.store import Store
for _ in range(5):
    with Store(sys.argv[1]).stage("cars") as staging:
        (staging.path / "model.onnx").write_bytes(b"graph")
        print(staging.commit(make_manifest()).version)
"""


def test_racing_processes_get_different_numbers(store: Store) -> None:
    code = RACES.format(tests=str(Path(__file__).parent))
    command = [sys.executable, "-c", code, str(store.root)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    versions = [int(line) for each in running for line in each.communicate()[0].split()]
    assert sorted(versions) == list(range(1, 16)) == store.list_versions("cars")


def full(*_args: Any, **_options: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("owner", "function"),
    [
        (os, "fsync"),
        (Path, "mkdir"),
        (Path, "write_text"),
        (Path, "rename"),
        (Path, "replace"),
        (disk, "sha256"),
        (disk, "write_whole"),
    ],
)
def test_full_disk_is_told_and_leaves_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, owner: Any, function: str
) -> None:
    def write_version(patch: pytest.MonkeyPatch) -> None:
        if function == "mkdir":
            patch.setattr(owner, function, full)
        with store.stage("cars") as staging:
            write_graph(staging.path / "model.onnx")
            patch.setattr(owner, function, full)
            staging.commit(make_manifest())

    with monkeypatch.context() as patch, pytest.raises(DiskFullError, match="disk is full"):
        write_version(patch)
    assert store.list_names() == []
    left = [path.name for path in store.root.glob("cars/.staging*")]
    assert left == []


def test_full_disk_in_the_body_is_told(store: Store) -> None:
    with pytest.raises(DiskFullError), store.stage("cars"):
        full()
    with pytest.raises(DiskFullError), store.stage("cars"):
        raise RuntimeError("write failed: No space left on device (os error 28)")
    with pytest.raises(DiskFullError, match="cache"), store.stage("cars"):
        raise DiskFullError("the cache is full")
    with pytest.raises(ZeroDivisionError), store.stage("cars"):
        raise ZeroDivisionError
    assert list((store.root / "cars").iterdir()) == []


def test_full_disk_is_seen_through_causes() -> None:
    error = ValueError("cannot save")
    error.__cause__ = OSError(errno.ENOSPC, "full")
    assert no_room(error)
    assert no_room(OSError(errno.EDQUOT, "quota"))
    assert not no_room(OSError(errno.EACCES, "denied"))
    assert not no_room(None)


@pytest.mark.parametrize("file", ["model.onnx", "previews/0.png"])
def test_one_altered_byte_is_found(store: Store, add: Add, file: str) -> None:
    path = add().path / file
    data = bytearray(path.read_bytes())
    store.verify("cars", 1)
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    for check in (store.verify, store.promote):
        with pytest.raises(StoreError, match=file) as caught:
            check("cars", 1)
        assert "surgery models remove cars 1" in caught.value.hint


def test_damaged_previous_is_not_rolled_back_to(store: Store, add: Add) -> None:
    first = add()
    add()
    store.promote("cars", 2)
    first.graph().write_bytes(b"x")
    with pytest.raises(StoreError, match="altered"):
        store.rollback("cars")
    assert store.resolve("cars").version == 2


def test_damaged_version_can_be_removed(store: Store, add: Add) -> None:
    add()
    (add().path / "manifest.json").write_text("")
    store.remove("cars", 2)
    assert add().version == 3


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"production": "1"}',
        '{"production": true}',
        '{"production": 0}',
        '{"../x": 1}',
    ],
)
def test_broken_aliases_say_what_to_do(store: Store, add: Add, text: str) -> None:
    add(), add()
    path = store.root / "cars" / "aliases.json"
    path.write_text(text)
    for entry in ("aliases", "resolve", "rollback"):
        with pytest.raises(StoreError, match=r"aliases\.json") as caught:
            getattr(store, entry)("cars")
        assert "surgery models promote cars VERSION" in caught.value.hint
    assert store.resolve("cars@2").version == 2
    assert add().version == 3  # work done is not lost to them
    path.unlink()
    store.promote("cars", 2)
    assert json.loads(path.read_text()) == {"production": 2}


def test_readers_never_see_half_of_the_aliases(store: Store, add: Add) -> None:
    add(), add()
    end = time.monotonic() + 0.5
    with ThreadPoolExecutor(2) as pool:

        def swing() -> None:
            while time.monotonic() < end:
                store.promote("cars", 1)
                store.promote("cars", 2)

        writing = pool.submit(swing)
        while time.monotonic() < end:
            assert store.resolve("cars").version in (1, 2)
        writing.result()


def test_store_that_cannot_be_written_is_told(store: Store) -> None:
    store.root.parent.mkdir(exist_ok=True)
    store.root.write_text("a file where the store should be")
    with pytest.raises(StoreError, match="cannot be written"), store.stage("cars"):
        pass
    assert store.list_names() == []


def test_reading_writes_nothing(store: Store, add: Add) -> None:
    stored = add()
    stamps = {path: path.stat().st_mtime_ns for path in store.root.rglob("*")}
    store.resolve("cars")
    store.list_names()
    store.verify("cars", 1)
    assert {path: path.stat().st_mtime_ns for path in store.root.rglob("*")} == stamps
    assert stored.path.stat().st_mode & 0o055 == 0o055 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
