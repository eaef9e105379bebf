"""The document is valid, and what the service does is what it says."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS
from starlette.testclient import TestClient
from tiny_models import RED, add_classifier, add_segmenter

from service.limits import COUNTED
from surgery.artifact.store import Store

EVERY = settings(
    max_examples=60, deadline=None, derandomize=True, database=None, phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)  # fmt: skip


@pytest.fixture
def interface(store: Store) -> Any:
    """The document of a service that schemathesis starts itself."""
    from service.app import build_service
    from service.settings import Settings

    add_classifier(store)
    add_segmenter(store)
    app = build_service(Settings(models=store.root, device="cpu", poll_s=0)).to_asgi()
    return schemathesis.openapi.from_asgi("/openapi.json", app)


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/predict"), *(("GET", path) for path in sorted(COUNTED - {"/predict"}))]
)
def test_whatever_is_sent_the_answer_is_as_documented(interface: Any, method: str, path: str) -> None:
    @given(case=interface[path][method].as_strategy(generation_mode=GenerationMode.POSITIVE))
    @EVERY
    def right(case: Any) -> None:
        # No schema says which bytes are an image, so what fits the schema may still be refused.
        case.call_and_validate(excluded_checks=[CHECKS.get_one("positive_data_acceptance")])

    @given(case=interface[path][method].as_strategy(generation_mode=GenerationMode.NEGATIVE))
    @EVERY
    def wrong(case: Any) -> None:
        case.call_and_validate()

    right()
    if method == "POST":  # the others take nothing that could be wrong
        wrong()


def test_every_path_that_is_counted_is_documented(client: TestClient) -> None:
    assert set(client.get("/openapi.json").json()["paths"]) == COUNTED


@pytest.mark.parametrize("kind", ["shadow", "canary"])
def test_a_comparison_is_as_documented(store: Store, serve: Callable[..., TestClient], kind: str) -> None:
    add_classifier(store)
    add_classifier(store, scale=-1)
    store.start_rollout("colours", 2, kind, 1)
    client = serve()
    client.post("/predict", files={"image": RED})
    while not client.get("/compare").json()["candidate"]["answered"]:
        time.sleep(0.01)
    document = client.get("/openapi.json").json()
    for path, name in (("/compare", "Comparison"), ("/models", "Models")):
        schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        jsonschema_rs.Draft202012Validator(schema).validate(client.get(path).json())
        schema["components"]["schemas"][name]["additionalProperties"] = False  # nothing else is said
        jsonschema_rs.Draft202012Validator(schema).validate(client.get(path).json())


def test_the_limits_and_the_lock_are_those_of_the_settings(
    store: Store, serve: Callable[..., TestClient]
) -> None:
    add_classifier(store)
    add_segmenter(store)
    client = serve(max_images=3, max_pixels=12345, tokens=("sesame",))
    document = client.get("/openapi.json", headers={"Authorization": "Bearer sesame"}).json()
    form = document["paths"]["/predict"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form["properties"]["image"]["maxItems"] == 3
    assert "12345 pixels" in document["paths"]["/predict"]["post"]["description"]
    assert document["security"] == [{"token": []}]
    assert document["paths"]["/livez"]["get"]["security"] == []
