"""What /predict and /models answer to requests that are right."""

from __future__ import annotations

import asyncio
import base64
import io
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image
from starlette.testclient import TestClient
from tiny_models import RED, SCALE, add_classifier, add_segmenter, classifier_graph, plain, png

from surgery.artifact.graph import why_no_cuda
from surgery.artifact.store import Store

STEPS = {"decode", "preprocess", "queue", "inference", "postprocess"}


def ask(client: TestClient, image: bytes, **fields: str) -> Any:
    return client.post("/predict", files={"image": ("photo.jpg", image)}, data=fields)


def half_red(width: int = 60, height: int = 40) -> bytes:
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 4, 0] = 255
    return png(pixels)


def test_labels_are_those_of_the_network(client: TestClient, store: Store) -> None:
    body = ask(client, RED, model="colours").json()
    first = math.exp(255 * SCALE) / (math.exp(255 * SCALE) + 2)
    assert [row["label"] for row in body["labels"]] == ["red", "green", "blue"]
    assert body["labels"][0]["probability"] == pytest.approx(first, abs=1e-6)
    assert sum(row["probability"] for row in body["labels"]) == pytest.approx(1)
    assert (body["model"], body["version"], body["task"]) == ("colours", 1, "classify")
    assert body["sha256"] == store.resolve("colours").sha256()
    assert set(body["milliseconds"]) == STEPS
    assert all(value >= 0 for value in body["milliseconds"].values())


def test_mask_in_json_is_the_index_mask_in_the_images_own_size(client: TestClient) -> None:
    body = ask(client, half_red(), model="cars").json()
    mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(body["mask"]))))
    assert mask.shape == (40, 60)
    assert (mask[:, :15] == 1).all()
    assert (mask[:, 15:] == 0).all()
    assert body["pixels"] == {"rest": 0.75, "car": 0.25}
    assert body["boxes"] == [{"label": "car", "box": [0, 0, 15, 40], "pixels": 600}]
    assert (body["size"], body["values"]) == ([60, 40], {"rest": 0, "car": 1})


def test_mask_as_png(client: TestClient) -> None:
    answer = client.post(
        "/predict?model=cars",
        content=half_red(),
        headers={"Content-Type": "image/png", "Accept": "image/png"},
    )
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-surgery-model"] == "cars"
    assert answer.headers["x-surgery-version"] == "1"
    image = Image.open(io.BytesIO(answer.content))
    assert image.size == (60, 40)
    assert np.asarray(image).sum() == 600


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("image/png, application/json", "application/json"),
        ("image/png, application/json;q=0.5", "image/png"),
        ("image/png;q=0", "application/json"),
        ("*/*", "application/json"),
        ("image/png;q=x;;,", "application/json"),
    ],
)
def test_accept_chooses_the_form(client: TestClient, accept: str, kind: str) -> None:
    files = {"image": half_red()}
    answer = client.post("/predict", files=files, data={"model": "cars"}, headers={"Accept": accept})
    assert (answer.status_code, answer.headers["content-type"]) == (200, kind)


def test_a_form_and_a_raw_body_get_the_same_answer(client: TestClient) -> None:
    form = ask(client, RED, model="colours@1").json()
    raw = client.post(
        "/predict", params={"model": "colours@production"}, content=RED,
        headers={"Content-Type": "application/octet-stream"},
    ).json()  # fmt: skip
    form.pop("milliseconds"), raw.pop("milliseconds")
    assert form == raw


def test_the_type_is_read_from_the_content_not_from_its_label(client: TestClient) -> None:
    answer = client.post("/predict?model=colours", content=RED, headers={"Content-Type": "image/jpg"})
    assert answer.status_code == 200


def test_model_may_be_left_out_where_only_one_exists(store: Store, serve: Callable[..., TestClient]) -> None:
    add_classifier(store)
    (store.root / "notes").mkdir()
    assert ask(serve(), RED).json()["model"] == "colours"


def test_a_version_that_is_not_production_is_loaded_on_first_use(client: TestClient, store: Store) -> None:
    add_classifier(store, scale=-SCALE)
    states = {row["version"]: row["state"] for row in rows(client, "colours")}
    assert states == {1: "serving", 2: "stored"}
    assert ask(client, RED, model="colours").json()["labels"][0]["label"] == "red"
    second = ask(client, RED, model="colours@2").json()
    assert (second["version"], second["labels"][-1]["label"]) == (2, "red")
    assert rows(client, "colours")[1]["state"] == "loaded"


def test_extra_versions_are_bounded(store: Store, serve: Callable[..., TestClient]) -> None:
    for _ in range(4):
        add_classifier(store)
    size = store.resolve("colours@1").graph().stat().st_size
    client = serve(max_extra_mib=2.5 * size / 2**20)
    for version in (2, 3, 2, 4):
        assert ask(client, RED, model=f"colours@{version}").json()["version"] == version
    states = [row["state"] for row in rows(client, "colours")]
    assert states == ["serving", "loaded", "stored", "loaded"]


def rows(client: TestClient, name: str) -> list[dict[str, Any]]:
    return [row for row in client.get("/models").json()["models"] if row["name"] == name]


def test_models_lists_everything(client: TestClient, store: Store) -> None:
    body = client.get("/models").json()
    assert body["ready"] is True
    cars, colours = body["models"]
    assert cars == {
        "name": "cars",
        "version": 1,
        "aliases": ["production"],
        "task": "segment",
        "classes": ["rest", "car"],
        "input": {"size_rule": "native", "colour": "RGB"},
        "precision": "fp32",
        "sha256": store.resolve("cars").sha256(),
        "created": "2025-01-01T00:00:00+00:00",
        "state": "serving",
        "device": "cpu",
        "batch": cars["batch"],
        "lanes": cars["lanes"],
        "explains": True,
    }
    assert colours["input"] == {"size_rule": "crop", "width": 32, "height": 24, "colour": "RGB"}


def test_the_graph_of_the_device_is_served(store: Store, serve: Callable[..., TestClient]) -> None:
    manifest = add_classifier(store).manifest
    with store.stage("colours") as staging:
        onnx.save(classifier_graph(SCALE), staging.path / "model.onnx")
        onnx.save(classifier_graph(-SCALE), staging.path / "model.int8.onnx")
        served_on = {"cpu": "model.int8.onnx", "cuda": "model.onnx"}
        graphs = {"int8": "model.int8.onnx", "fp32": "model.onnx"}
        staging.commit(replace(manifest, serve=served_on, graphs=graphs, precision="int8"))
    with store.stage("colours") as staging:  # made in int8, but fp32 was faster
        onnx.save(classifier_graph(SCALE), staging.path / "model.onnx")
        onnx.save(classifier_graph(-SCALE), staging.path / "model.int8.onnx")
        staging.commit(replace(manifest, graphs=graphs, precision="int8"))
    for device in ("cpu", "auto"):  # `auto` is meant for a machine without CUDA here
        if device == "auto" and not why_no_cuda():
            continue
        body = ask(serve(device=device), RED, model="colours@2").json()
        assert body["labels"][-1]["label"] == "red"
        assert body["sha256"] == store.resolve("colours@2").manifest.files["model.int8.onnx"]
        assert body["precision"] == "int8"
    client = serve(device="cpu")
    assert ask(client, RED, model="colours@3").json()["precision"] == "fp32"
    rows = {row["version"]: row["precision"] for row in client.get("/models").json()["models"]}
    assert rows == {1: "fp32", 2: "int8", 3: "fp32"}


def test_ready_once_a_model_is_loaded(client: TestClient) -> None:
    assert client.get("/readyz").status_code == 200
    assert client.get("/livez").status_code == 200


def test_sizes_of_every_kind(client: TestClient) -> None:
    for size in ((1, 1), (1, 3000), (3000, 1), (17, 23)):
        body = ask(client, plain((255, 0, 0), size), model="cars").json()
        assert (body["size"], body["pixels"]["car"]) == (list(size), 1.0)
        assert ask(client, plain((255, 0, 0), size), model="colours").status_code == 200


def test_a_promotion_is_answered_by_the_new_version(store: Store, serve: Callable[..., TestClient]) -> None:
    add_classifier(store)
    client = serve(poll_s=0.05)
    add_classifier(store, scale=-SCALE)
    add_segmenter(store)
    store.promote("colours", 2)
    end = time.monotonic() + 10
    while time.monotonic() < end:
        body = ask(client, RED, model="colours").json()
        winner = {1: "red", 2: "green"}[body["version"]]
        assert body["labels"][0]["label"] == winner
        if body["version"] == 2:
            break
        time.sleep(0.02)
    assert body["version"] == 2
    assert ask(client, RED, model="cars").status_code == 200


def test_a_call_within_the_process_is_answered_as_a_request_is(
    store: Store, serve: Callable[..., TestClient], tmp_path: Path
) -> None:
    from service.app import build_service
    from service.reply import Refusal
    from service.settings import Settings

    add_classifier(store)
    (tmp_path / "red.png").write_bytes(RED)
    wanted = serve().post("/predict", files={"image": RED}).json()
    surgery = build_service(Settings(models=store.root, device="cpu", poll_s=0)).inner()
    surgery.start()
    found = asyncio.run(surgery.predict(image=tmp_path / "red.png", model="colours"))
    changing = {"milliseconds": 0}
    assert found | changing == wanted | changing
    with pytest.raises(Refusal):
        asyncio.run(surgery.predict(image=tmp_path / "red.png", model="boats"))
    surgery.stop()
