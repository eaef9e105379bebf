"""What all tests share: an own store, own runs and an own cache for every test."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def rooms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point store, runs and activation cache into the test's folder, and stand in it."""
    room = tmp_path / "room"
    room.mkdir()
    for key, name in (("SURGERY_MODELS", "models"), ("SURGERY_RUNS", "runs"), ("SURGERY_CACHE", "cache")):
        monkeypatch.setenv(key, str(room / name))
    monkeypatch.chdir(room)
    return room
