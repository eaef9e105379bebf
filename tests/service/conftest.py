"""A store of two tiny models, and a client of a service on it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

# BentoML makes this folder when it is imported.
os.environ.setdefault("BENTOML_HOME", tempfile.mkdtemp(prefix="bentoml-"))

import pytest
from starlette.testclient import TestClient
from tiny_models import add_classifier, add_segmenter

from surgery.artifact.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


@pytest.fixture
def serve(store: Store) -> Iterator[Callable[..., TestClient]]:
    """Return a function that starts the service on the store and gives a client of it."""
    from service.app import build_service
    from service.settings import Settings

    with ExitStack() as stack:

        def start(**settings: Any) -> TestClient:
            chosen = Settings(models=store.root, **{"device": "cpu", "poll_s": 0, **settings})
            app = build_service(chosen).to_asgi()
            return stack.enter_context(TestClient(app, raise_server_exceptions=False))

        yield start


@pytest.fixture
def client(store: Store, serve: Callable[..., TestClient]) -> TestClient:
    """A client of a service with one classifier and one segmenter."""
    add_classifier(store)
    add_segmenter(store)
    return serve()
