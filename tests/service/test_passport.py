"""The passport of a version over HTTP: who may read it, and what a browser may do with it."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import jsonschema_rs
from starlette.testclient import TestClient
from tiny_models import add_classifier, add_segmenter

from surgery.artifact.passports import PAGE, passport_folder
from surgery.artifact.store import Store, StoredVersion

TEXT = "<!doctype html><html><head><style>p { color: red; }</style></head><body><p>Hello</p></body></html>"


def write(stored: StoredVersion, text: str = TEXT) -> Path:
    folder = passport_folder(stored)
    folder.mkdir(parents=True)
    (folder / PAGE).write_text(text)
    return folder / PAGE


def test_the_page_is_served_and_may_run_nothing(store: Store, serve: Callable[..., TestClient]) -> None:
    write(add_classifier(store))
    answer = serve().get("/passport", params={"model": "colours@1"})
    assert (answer.status_code, answer.text) == (200, TEXT)
    assert answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    block = re.findall(r"<style>(.*?)</style>", TEXT)[0]
    digest = base64.b64encode(hashlib.sha256(block.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_models_link_to_the_passports_that_there_are(store: Store, serve: Callable[..., TestClient]) -> None:
    write(add_classifier(store))
    add_segmenter(store)
    client = serve()
    found = client.get("/models").json()
    links = {row["name"]: row.get("passport") for row in found["models"]}
    assert links == {"colours": "passport?model=colours@1", "cars": None}
    assert client.get("/" + links["colours"]).text == TEXT
    document = client.get("/openapi.json").json()
    schema = {"$ref": "#/components/schemas/Models", "components": document["components"]}
    schema["components"]["schemas"]["Models"]["additionalProperties"] = False
    jsonschema_rs.Draft202012Validator(schema).validate(found)


def test_it_wants_the_token_that_everything_wants(store: Store, serve: Callable[..., TestClient]) -> None:
    write(add_classifier(store))
    client = serve(tokens=("sesame",))
    assert client.get("/passport?model=colours").status_code == 401
    opened = client.get("/passport?model=colours", headers={"Authorization": "Bearer sesame"})
    assert (opened.status_code, opened.text) == (200, TEXT)


def test_what_has_none_is_a_404_that_says_how_to_get_one(
    store: Store, serve: Callable[..., TestClient]
) -> None:
    add_classifier(store)
    client = serve()
    answer = client.get("/passport").json()["error"]
    assert (answer["code"], "surgery passport colours@1" in answer["hint"]) == ("no_passport", True)
    assert client.get("/passport?model=boats").json()["error"]["code"] == "model_not_found"
    assert client.get("/passport?model=../colours").json()["error"]["code"] == "bad_model_name"


def test_a_link_out_of_the_store_is_not_followed(
    store: Store, serve: Callable[..., TestClient], tmp_path: Path
) -> None:
    stored = add_classifier(store)
    secret = tmp_path / "secret.html"
    secret.write_text("secret")
    folder = passport_folder(stored)
    folder.mkdir(parents=True)
    (folder / PAGE).symlink_to(secret)
    client = serve()
    assert client.get("/passport?model=colours").status_code == 404
    assert "passport" not in client.get("/models").json()["models"][0]
