"""A store of two tiny models, and a client of a service on it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

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


@pytest.fixture(scope="module")  # no longer: while it runs, nothing else can run an event loop
def browser() -> Iterator[Any]:
    rootless = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium's sandbox refuses root
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=rootless)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Callable[..., Any]]:
    """Return a function that opens the page; afterwards: no foreign host was asked, and no error logged."""
    from playwright.sync_api import expect

    contexts: list[Any] = []
    errors: list[str] = []
    asked: list[str] = []

    def open_page(before: Callable[[Any], object] = lambda page: None, **options: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        context.set_default_timeout(20_000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        before(page)
        page.goto(address)
        expect(page.locator("main")).to_be_visible()
        return page

    yield open_page
    for context in contexts:
        context.close()
    # Browsers log each answer of 4xx and each lost connection by themselves.
    assert [text for text in errors if not text.startswith("Failed to load resource")] == []
    own = urlsplit(address).netloc
    assert {
        url for url in asked if not url.startswith(("data:", "blob:")) and urlsplit(url).netloc != own
    } == set()
