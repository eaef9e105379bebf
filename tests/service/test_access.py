"""Who may ask, and what is written down and counted of each request."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient
from test_service_faults import refused
from tiny_models import RED, add_classifier

from service.access import JsonLines
from surgery.artifact.store import Store

PATHS = ("/predict", "/models", "/metrics", "/nowhere", "/docs.json", "/schema.json")


@pytest.fixture
def locked(store: Store, serve: Callable[..., TestClient], tmp_path: Path) -> TestClient:
    add_classifier(store)
    (tmp_path / "tokens").write_text("from-the-file\n")
    return serve(tokens=("sesame", "open"), tokens_file=tmp_path / "tokens")


@pytest.mark.parametrize("token", ["sesame", "open", "from-the-file"])
def test_each_token_opens(locked: TestClient, token: str) -> None:
    for scheme in ("Bearer", "bearer"):
        headers = {"Authorization": f"{scheme} {token}"}
        assert locked.post("/predict", files={"image": RED}, headers=headers).status_code == 200
        assert locked.get("/models", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "sent",
    ["", "Bearer", "Bearer ", "Bearer sesam", "Bearer sesame1", "Basic sesame", "sesame", "Bearer sésame"],
)
def test_everything_else_is_401_before_it_costs_anything(locked: TestClient, sent: str) -> None:
    headers = {"Authorization": sent.encode("latin-1")} if sent else {}
    for path in PATHS:
        answer = locked.request("POST" if path == "/predict" else "GET", path, headers=headers)
        refused(answer, 401, "unauthorised")
        assert answer.headers["www-authenticate"] == "Bearer"


def test_probes_need_no_token(locked: TestClient) -> None:
    assert locked.get("/livez").status_code == locked.get("/readyz").status_code == 200


def test_a_request_keeps_its_id_or_gets_one(client: TestClient) -> None:
    assert client.get("/models", headers={"X-Request-Id": "abc-1.2_3"}).headers["x-request-id"] == "abc-1.2_3"
    for odd in ("a b", "x" * 65, 'a"b', ""):
        fresh = client.get("/nowhere", headers={"X-Request-Id": odd}).headers["x-request-id"]
        assert fresh != odd
        assert len(fresh) == 32


def test_each_request_is_one_json_line(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "surgery.service")
    client.post("/predict", files={"image": RED}, data={"model": "colours"}, headers={"X-Request-Id": "one"})
    client.post("/predict", files={"image": b"x"}, data={"model": "colours"}, headers={"X-Request-Id": "two"})
    client.get("/livez")
    lines = [json.loads(JsonLines().format(record)) for record in caplog.records]
    first, second = [line for line in lines if "request_id" in line]
    assert (first["request_id"], first["status"], first["model"], first["version"]) == (
        "one",
        200,
        "colours",
        "1",
    )
    assert (second["request_id"], second["status"], second["code"]) == ("two", 400, "bad_image")
    assert first["milliseconds"] > 0
    assert first["time"].endswith("Z")


def test_no_line_of_the_log_is_a_clients(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "surgery.service")
    client.get("/x%0A2026-01-01 INFO status=200%1B[31m/é")
    lines = [record.getMessage() for record in caplog.records if "/x" in record.getMessage()]
    assert len(lines) == 1
    assert "path=/x%0A2026-01-01%20INFO%20status=200%1B%5B31m/%C3%A9" in lines[0]


def counted(client: TestClient) -> dict[tuple[str, ...], float]:
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {
        (sample.name, *(f"{key}={value}" for key, value in sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_what_is_answered_is_counted_by_model(client: TestClient) -> None:
    for _ in range(3):
        client.post("/predict", files={"image": RED}, data={"model": "colours"})
    client.post("/predict", files={"image": b"x"}, data={"model": "colours"})
    found = counted(client)
    colours = ("model=colours", "path=/predict", "status=200", "version=1")
    assert found["surgery_requests_total", *colours] == 3
    assert found["surgery_errors_total", "code=bad_image"] == 1
    assert found["surgery_pixels_total", "model=colours", "version=1"] == 3 * 40 * 30
    for step in ("decode", "preprocess", "queue", "inference", "postprocess"):
        assert found["surgery_step_seconds_count", "model=colours", f"step={step}", "version=1"] == 3
    assert found["surgery_batch_size_count", "model=colours", "version=1"] == 3
    assert found["surgery_waiting",] == found["surgery_at_work",] == 0
    assert found["surgery_resident_memory_bytes",] > 1e6


def test_labels_stay_few_whatever_is_asked(client: TestClient) -> None:
    counted(client)
    before = len(counted(client))

    def ask(k: int) -> Any:
        client.get(f"/path-{k}")
        return client.post("/predict", files={"image": RED}, data={"model": f"model-{k}"})

    for k in range(50):
        ask(k)
    assert len(counted(client)) < before + 60
    first = len(counted(client))
    for k in range(50, 80):
        ask(k)
    assert len(counted(client)) == first
