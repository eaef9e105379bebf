"""What a request may ask for beside one image's plain answer."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient
from test_service_faults import refused
from tiny_models import RED, add_classifier, plain, png

from surgery.artifact.store import Store


def ask(client: TestClient, **options: Any) -> Any:
    return client.post("/predict", files={"image": options.pop("image", RED)}, data=options)


def picture(text: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def half_red() -> bytes:
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, :15, 0] = 255
    return png(pixels)


def test_the_most_probable_labels_alone(client: TestClient) -> None:
    whole = ask(client, model="colours").json()["labels"]
    assert ask(client, model="colours", top_k=2).json()["labels"] == whole[:2]
    assert ask(client, model="colours", top_k=9).json()["labels"] == whole
    probable = ask(client, model="colours", threshold=0.5).json()["labels"]
    assert [row["label"] for row in probable] == ["red"]
    assert ask(client, model="colours", threshold=1).json()["labels"] == []


def test_a_mask_in_every_form(client: TestClient) -> None:
    outputs = "mask,polygons,rle,overlay,probabilities"
    body = ask(client, image=half_red(), model="cars", outputs=outputs).json()
    assert picture(body["mask"]).sum() == 600
    assert sorted(body["polygons"][0]["polygon"]) == [[0, 0], [0, 39], [14, 0], [14, 39]]
    assert body["rle"] == {"car": {"size": [40, 60], "counts": [0, 600, 1800]}}
    overlay = picture(body["overlay"])
    assert overlay.shape == (40, 60, 3)
    assert (overlay[:, 20:] == 0).all()
    assert (overlay[:, :15].astype(int) - (255, 0, 0)).any()
    assert overlay[20, 7, 0] > overlay[20, 7, 2]
    assert set(np.unique(picture(body["probabilities"]["car"]))) == {0, 255}


def test_only_what_is_asked_is_sent(client: TestClient) -> None:
    body = ask(client, image=half_red(), model="cars", outputs="rle").json()
    assert {"rle", "pixels", "boxes"} <= set(body)
    assert not {"mask", "polygons", "overlay", "probabilities"} & set(body)


@pytest.mark.parametrize(("outputs", "mode"), [("mask", "L"), ("overlay", "RGB"), ("probabilities", "L")])
def test_one_picture_as_png(client: TestClient, outputs: str, mode: str) -> None:
    answer = client.post(
        f"/predict?model=cars&outputs={outputs}", content=half_red(),
        headers={"Content-Type": "image/png", "Accept": "image/png"},
    )  # fmt: skip
    assert answer.headers["content-type"] == "image/png"
    image = Image.open(io.BytesIO(answer.content))
    assert (image.size, image.mode) == ((60, 40), mode)


@pytest.mark.parametrize("outputs", ["rle", "polygons", "mask,overlay"])
def test_what_is_no_single_picture_is_not_acceptable(client: TestClient, outputs: str) -> None:
    answer = client.post(
        "/predict", files={"image": RED}, data={"model": "cars", "outputs": outputs},
        headers={"Accept": "image/png"},
    )  # fmt: skip
    refused(answer, 406, "not_acceptable")


def test_several_images_get_an_answer_or_an_error_each(client: TestClient) -> None:
    sent = {
        "a.png": RED,
        "b.jpg": b"no image",
        "c.png": plain((0, 0, 255)),
        "d.png": plain((0, 255, 0), (9, 7)),
    }
    files = [("image", (name, data)) for name, data in sent.items()]
    answer = client.post("/predict", files=files, data={"model": "colours", "top_k": 1})
    assert answer.status_code == 200
    body = answer.json()
    assert (body["model"], body["version"], body["task"]) == ("colours", 1, "classify")
    assert [result["file"] for result in body["results"]] == list(sent)
    first, second, third, fourth = body["results"]
    assert [row["labels"][0]["label"] for row in (first, third, fourth)] == ["red", "blue", "green"]
    assert second["error"]["code"] == "bad_image"
    assert "labels" not in second
    alone = ask(client, model="colours", top_k=1).json()
    assert first["labels"] == alone["labels"]


def test_times_stand_in_a_header_too(client: TestClient) -> None:
    answer = ask(client, model="colours")
    steps = dict(part.split(";dur=") for part in answer.headers["server-timing"].split(", "))
    times = answer.json()["milliseconds"]
    assert {step: float(value) for step, value in steps.items()} == pytest.approx(times, rel=1e-4)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("top_k", "0"), ("top_k", "2.5"), ("top_k", "many"), ("top_k", "9" * 30), ("threshold", "1.1"),
        ("threshold", "nan"), ("threshold", "-1"), ("outputs", "masks"), ("outputs", "mask,"),
        ("explain", "maybe"),
    ],
)  # fmt: skip
def test_an_option_that_cannot_be_is_refused(client: TestClient, option: str, value: str) -> None:
    error = refused(ask(client, model="cars", **{option: value}), 422, "bad_option")
    assert option in error["message"]


def test_an_option_stated_twice_is_refused(client: TestClient) -> None:
    answer = client.post("/predict?top_k=1", files={"image": RED}, data={"model": "colours", "top_k": "2"})
    refused(answer, 400, "bad_request")


def test_labels_are_explained_by_where_they_come_from(client: TestClient) -> None:
    body = ask(client, image=half_red(), model="colours", explain="true").json()
    assert body["explanation"]["label"] == "red"
    heat = picture(body["explanation"]["image"])
    assert heat.shape == (40, 60)
    assert heat[:, 20:].max() == 0
    assert heat[20, 9:12].min() > 200
    assert heat[:, :5].max() == 0  # cropped away before the network saw it
    plain_answer = ask(client, image=half_red(), model="colours").json()
    assert body["labels"] == plain_answer["labels"]
    assert "explanation" not in plain_answer


def test_masks_are_explained_by_their_probability(client: TestClient) -> None:
    body = ask(client, image=half_red(), model="cars", explain="true", outputs="probabilities").json()
    assert body["explanation"] == {"label": "car", "image": body["probabilities"]["car"]}


@pytest.mark.parametrize("model", ["colours", "cars"])
def test_an_explanation_alone_as_png(client: TestClient, model: str) -> None:
    answer = client.post(
        f"/predict?model={model}&explain=1", content=half_red(),
        headers={"Content-Type": "image/png", "Accept": "image/png"},
    )  # fmt: skip
    image = Image.open(io.BytesIO(answer.content))
    assert (image.size, image.mode) == ((60, 40), "L")
    assert np.asarray(image)[:, 20:].max() == 0
    assert np.asarray(image)[20, 7] > 200


def test_an_early_version_says_that_it_cannot_explain(store: Store, serve: Callable[..., TestClient]) -> None:
    add_classifier(store, explains=False)
    refused(ask(serve(), explain="true"), 422, "cannot_explain")
