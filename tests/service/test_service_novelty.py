"""Novelty over HTTP: the same as elsewhere, counted, documented, and null where a version cannot tell it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jsonschema_rs
import numpy as np
import pytest
from starlette.testclient import TestClient
from tiny_models import RED, add_classifier, add_segmenter, plain

from surgery.artifact.image import decode_image
from surgery.artifact.novelty import NOVELTY_FILE, Gaussian, HeldOut, write_novelty
from surgery.artifact.session import answer_image, open_gauge, open_session
from surgery.artifact.store import Store

COLOURS = [(128, 128, 128), (130, 128, 128), (128, 140, 128), (0, 0, 255)]


def statistics(folder: Path) -> None:
    """Write statistics by which novelty falls with the distance from grey."""
    mean = np.full(3, 3**-0.5, np.float32)
    gaussian = Gaussian(mean, np.eye(1, 3, dtype=np.float32), np.array([2500.0]), 1e4)
    held_out = HeldOut(np.linspace(0.01, 20, 199), np.zeros((2, 3), np.float32))
    write_novelty(folder, gaussian, {"fp32": held_out})


@pytest.mark.parametrize("add", [add_classifier, add_segmenter])
def test_novelty_is_that_of_the_one_path_from_pixels_to_answer(
    store: Store, serve: Callable[..., TestClient], add: Callable[..., object]
) -> None:
    add(store, "tiny", prepare=statistics)
    stored, client = store.resolve("tiny"), serve()
    session = open_session(stored.graph(), "cpu")
    gauge, wanted = open_gauge(stored, session), []
    for colour in COLOURS:
        image = decode_image(plain(colour))
        wanted.append(answer_image(session, stored.manifest, image, gauge=gauge).novelty)
    with ThreadPoolExecutor(8) as pool:  # together, so that some run as a batch
        posted = [plain(colour) for colour in COLOURS * 4]
        answers = list(pool.map(lambda data: client.post("/predict", files={"image": data}).json(), posted))
    assert [answer["novelty"] for answer in answers] == wanted * 4
    assert wanted[0] == 1.0
    assert wanted == sorted(wanted, reverse=True)
    assert wanted[-1] == 1 / 200


def test_a_version_of_an_early_program_has_none(client: TestClient) -> None:
    answer = client.post("/predict", files={"image": RED}, data={"model": "colours"}).json()
    assert answer["novelty"] is None
    assert "surgery_novelty_count" not in client.get("/metrics").text


def test_a_version_whose_statistics_are_damaged_is_not_served(
    store: Store, serve: Callable[..., TestClient]
) -> None:
    add_classifier(store, prepare=lambda folder: (folder / NOVELTY_FILE).write_bytes(b"nothing"))
    client = serve()
    assert client.get("/readyz").status_code == 503
    assert any(NOVELTY_FILE in problem for problem in client.get("/models").json()["problems"])


def test_a_version_with_the_statistics_of_another_graph_is_not_served(
    store: Store, serve: Callable[..., TestClient]
) -> None:
    def another(folder: Path) -> None:
        gaussian = Gaussian(np.full(4, 0.5, np.float32), np.zeros((0, 4), np.float32), np.zeros(0), 1.0)
        held_out = HeldOut(np.ones(3), np.zeros((2, 4), np.float32))
        write_novelty(folder, gaussian, {"fp32": held_out})

    add_classifier(store, prepare=another)
    (row,) = serve().get("/models").json()["models"]
    assert row["state"] == "failed"
    assert "embeddings have" in row["reason"]


def test_its_distribution_is_counted(store: Store, serve: Callable[..., TestClient]) -> None:
    add_classifier(store, prepare=statistics)
    client = serve()
    for colour in COLOURS:
        client.post("/predict", files={"image": plain(colour)})
    lines = client.get("/metrics").text.splitlines()
    found = {
        line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1])
        for line in lines
        if line.startswith("surgery_novelty")
    }
    label = 'model="colours",version="1"'
    buckets = [found[f'surgery_novelty_bucket{{le="{le}",{label}}}'] for le in ("0.002", "0.005", "1.0")]
    assert buckets == [0, 1, 4]
    assert found[f"surgery_novelty_count{{{label}}}"] == 4


def test_the_document_knows_it(store: Store, serve: Callable[..., TestClient]) -> None:
    add_classifier(store, prepare=statistics)
    client = serve()
    document = client.get("/openapi.json").json()
    schema = {"$ref": "#/components/schemas/Prediction", "components": document["components"]}
    answer = client.post("/predict", files={"image": RED}).json()
    jsonschema_rs.validate(schema, answer)
    jsonschema_rs.validate(schema, answer | {"novelty": None})
    with pytest.raises(jsonschema_rs.ValidationError):
        jsonschema_rs.validate(schema, answer | {"novelty": 1.5})
