"""A store, and a way to fill it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_graph import Add, make_manifest, write_graph

from surgery.artifact.store import Store, StoredVersion


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


@pytest.fixture
def add(store: Store) -> Add:
    """Commit one more version of a name."""

    def commit(name: str = "cars", task: str = "segment") -> StoredVersion:
        with store.stage(name) as staging:
            write_graph(staging.path / "model.onnx", task)
            (staging.path / "previews").mkdir()
            (staging.path / "previews" / "0.png").write_bytes(b"a picture")
            return staging.commit(make_manifest(name, task))

    return commit
