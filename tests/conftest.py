"""What all tests share: an own store, own runs and an own cache for every test."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path
from typing import Any

import pytest

LEFT_OUT = {
    "browser": (lambda: shutil.which("chromium") is None, "there is no `chromium` on the path"),
    "data": (lambda: "SURGERY_DATA" not in os.environ, "SURGERY_DATA names no folder of real images"),
    "glibc": (lambda: platform.libc_ver()[0] != "glibc", "the C library is not glibc"),
    "gpu": (lambda: not Path("/dev/nvidiactl").exists(), "there is no GPU"),
    "systemd": (lambda: shutil.which("systemd-analyze") is None, "there is no systemd-analyze"),
    "no_gpu": (lambda: Path("/dev/nvidiactl").exists(), "there is a GPU"),
}
"""Markers of tests that need what not every machine has: when it is missing, and how to say so."""


def pytest_configure(config: pytest.Config) -> None:
    """Name the markers; one thread for each process's torch, since tests run side by side."""
    for marker, (_, reason) in LEFT_OUT.items():
        config.addinivalue_line("markers", f"{marker}: left out where {reason}")
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what cannot run here."""
    for marker, (missing, _) in LEFT_OUT.items():
        chosen = [item for item in items if item.get_closest_marker(marker)]
        if chosen and missing():
            config.hook.pytest_deselected(items=chosen)
            items[:] = [item for item in items if item not in chosen]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say what was left out, and why."""
    for marker, (missing, reason) in LEFT_OUT.items():
        if missing():
            terminalreporter.write_line(f"left out, since {reason}: tests marked {marker}")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail where CI skipped a test: a skip there is a missing install step."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and exitstatus == 0 and reporter and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True)
def rooms(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point store, runs and caches into the test's folder, and stand in it; optimised graphs are shared."""
    room = tmp_path / "room"
    room.mkdir()
    for key, name in (("SURGERY_MODELS", "models"), ("SURGERY_RUNS", "runs"), ("SURGERY_CACHE", "cache")):
        monkeypatch.setenv(key, str(room / name))
    monkeypatch.setenv("SURGERY_GRAPH_CACHE", str(tmp_path_factory.getbasetemp() / "graphs"))
    monkeypatch.chdir(room)
    return room
