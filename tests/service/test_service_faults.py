"""What the service answers to what is wrong: in the request, and in the store."""

from __future__ import annotations

import asyncio
import json
import random
import struct
import threading
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from tiny_models import RED, SCALE, add_classifier, add_segmenter, plain

from service import batcher, predict, shelf
from service.limits import Brake, Guard
from service.settings import Settings
from surgery.artifact.errors import StoreError, SurgeryError
from surgery.artifact.store import Store

BOUNDARY = {"Content-Type": "multipart/form-data; boundary=b"}


def refused(answer: Any, status: int, code: str) -> dict[str, str]:
    """Return the error of an answer after checking that it has the one shape."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["error"]
    error = answer.json()["error"]
    assert set(error) == {"code", "message", "hint"}
    assert error["code"] == code
    assert error["message"]
    return dict(error)


def post(client: TestClient, image: bytes, model: str = "colours", **options: Any) -> Any:
    return client.post("/predict", files={"image": image}, data={"model": model}, **options)


def until(true: Callable[[], bool], seconds: float = 30) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


BAD_IMAGES = {
    "empty": b"",
    "text": b"no image",
    "truncated": RED[:-30],
    "header only": RED[:20],
    "html": b"<html>",
    "riff": b"RIFF\0\0\0\0WEBPVP8 ",
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
}


@pytest.mark.parametrize("image", BAD_IMAGES.values(), ids=BAD_IMAGES.keys())
def test_an_undecodable_image_is_400(client: TestClient, image: bytes) -> None:
    refused(post(client, image), 400, "bad_image")
    raw = {"content": image, "headers": {"Content-Type": "image/jpeg"}}
    refused(client.post("/predict?model=cars", **raw), 400, "bad_image")


def bomb(side: int) -> bytes:
    """Return a small PNG that states side × side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 10_000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_too_many_pixels_are_refused_undecoded(store: Store, serve: Callable[..., TestClient]) -> None:
    add_classifier(store)
    client = serve(max_pixels=1200)
    assert post(client, plain((255, 0, 0), (40, 30))).status_code == 200
    for image in (plain((255, 0, 0), (41, 30)), bomb(20_000), bomb(2**31 - 1)):
        assert "pixel" in refused(post(client, image), 422, "too_many_pixels")["message"]


def test_damaged_images_never_cost_a_5xx(client: TestClient) -> None:
    chance = random.Random(0)
    for _ in range(60):
        image = bytearray(RED)
        for _ in range(chance.randint(1, 8)):
            image[chance.randrange(len(image))] = chance.randrange(256)
        assert post(client, bytes(image)).status_code in (200, 400)


FORMS = {
    "no field": ({"data": {"model": "colours"}, "files": {"x": b"1"}}, 400, "missing_field"),
    "other field": ({"files": {"photo": RED}}, 400, "missing_field"),
    "too many images": ({"files": [("image", RED)] * 17}, 422, "too_many_images"),
    "text among images": ({"files": [("image", RED)], "data": {"image": "x"}}, 400, "wrong_field"),
    "two models": (
        {"files": {"image": RED}, "data": {"model": "cars"}, "params": {"model": "colours"}},
        400,
        "bad_request",
    ),
    "no boundary": (
        {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}},
        400,
        "bad_form",
    ),
    "not the boundary": ({"content": b"--c\r\n\r\n", "headers": BOUNDARY}, 400, "bad_form"),
    "cut off": (
        {"content": b'--b\r\nContent-Disposition: form-data; name="image"', "headers": BOUNDARY},
        400,
        "missing_field",
    ),
    "text field": (
        {
            "content": b'--b\r\nContent-Disposition: form-data; name="image"\r\n\r\nx\r\n--b--\r\n',
            "headers": BOUNDARY,
        },
        400,
        "wrong_field",
    ),
    "json": ({"json": {"image": "https://example.org/x.jpg"}}, 415, "unsupported_media_type"),
    "urlencoded": ({"data": {"image": "x"}}, 415, "unsupported_media_type"),
    "nothing": ({}, 415, "unsupported_media_type"),
    "pickle": (
        {"content": b"x", "headers": {"Content-Type": "application/vnd.bentoml+pickle"}},
        415,
        "unsupported_media_type",
    ),
}


@pytest.mark.parametrize(("request_", "status", "code"), FORMS.values(), ids=FORMS.keys())
def test_a_wrong_form_is_refused(
    client: TestClient, request_: dict[str, Any], status: int, code: str
) -> None:
    refused(client.post("/predict", **request_), status, code)


def test_many_fields_are_refused(client: TestClient) -> None:
    fields = {f"f{k}": "x" for k in range(50)}
    refused(client.post("/predict", files={"image": RED}, data=fields), 400, "bad_form")


NAMES = {
    "unknown": ("boats", 404, "model_not_found"),
    "no such version": ("colours@9", 404, "model_not_found"),
    "no such alias": ("colours@beta", 404, "model_not_found"),
    "outside": ("../../etc", 400, "bad_model_name"),
    "outside by version": ("colours@../../etc", 400, "bad_model_name"),
    "zero": ("colours@0", 400, "bad_model_name"),
    "no selector": ("colours@", 400, "bad_model_name"),
    "nul": ("a\0b", 400, "bad_model_name"),
    "long": ("x" * 5000, 400, "bad_model_name"),
    "odd digits": ("colours@²", 400, "bad_model_name"),
}


@pytest.mark.parametrize(("name", "status", "code"), NAMES.values(), ids=NAMES.keys())
def test_a_wrong_name_is_refused(client: TestClient, name: str, status: int, code: str) -> None:
    refused(client.post("/predict", files={"image": RED}, params={"model": name}), status, code)


def test_an_unknown_name_is_told_what_there_is(client: TestClient, store: Store) -> None:
    error = refused(post(client, RED, "boats"), 404, "model_not_found")
    assert "cars, colours" in error["message"]
    assert str(store.root) not in json.dumps(error)


def test_leaving_the_model_out_among_several_is_400(client: TestClient) -> None:
    error = refused(client.post("/predict", files={"image": RED}), 400, "model_required")
    assert "cars, colours" in error["hint"]


def test_a_png_of_labels_is_not_acceptable(client: TestClient) -> None:
    answer = post(client, RED, headers={"Accept": "image/png"})
    refused(answer, 406, "not_acceptable")


def test_paths_and_methods_answer_in_the_one_shape(client: TestClient) -> None:
    refused(client.get("/nowhere"), 404, "not_found")
    refused(client.get("/predict"), 405, "method_not_allowed")
    refused(client.post("/models"), 405, "method_not_allowed")
    assert client.get("/predict").headers["allow"] == "POST"


def test_a_body_past_the_cap_is_413(store: Store, serve: Callable[..., TestClient]) -> None:
    add_classifier(store)
    client = serve(max_body_mib=0.01)

    def chunks() -> Any:
        for _ in range(20):
            yield b"x" * 1024

    stated = client.post("/predict", files={"image": b"x" * 11_000})
    refused(stated, 413, "body_too_large")
    for media_type in ("image/jpeg", BOUNDARY["Content-Type"]):
        headers = {"Content-Type": media_type}
        refused(client.post("/predict", content=chunks(), headers=headers), 413, "body_too_large")
    assert post(client, RED).status_code == 200


def test_out_of_time_is_504(
    store: Store, serve: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    add_classifier(store)
    client = serve(timeout_s=1)
    original = predict.decode_image
    monkeypatch.setattr(predict, "decode_image", lambda *a: time.sleep(1.5) or original(*a))
    runs: list[int] = []
    answer = batcher._answer
    monkeypatch.setattr(
        batcher, "_answer", lambda places, wide: runs.append(len(places)) or answer(places, wide)
    )
    refused(post(client, RED), 504, "timeout")
    time.sleep(1)
    assert runs == [], "nobody waits for that answer any more"
    monkeypatch.setattr(predict, "decode_image", original)
    assert post(client, RED).status_code == 200
    assert runs == [1]


def test_too_many_at_once_are_429(
    store: Store, serve: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    add_classifier(store)
    client = serve(max_concurrency=1, max_waiting=0)
    inside, go_on = threading.Event(), threading.Event()
    original = predict.decode_image

    def slow(*arguments: Any) -> Any:
        inside.set()
        go_on.wait(10)
        return original(*arguments)

    monkeypatch.setattr(predict, "decode_image", slow)
    answers: list[Any] = []
    first = threading.Thread(target=lambda: answers.append(post(client, RED)))
    first.start()
    assert inside.wait(10)
    second = post(client, RED)
    refused(second, 429, "too_many_requests")
    assert second.headers["retry-after"] == "1"
    assert client.get("/livez").status_code == client.get("/readyz").status_code == 200
    go_on.set()
    first.join()
    assert answers[0].status_code == 200
    assert post(client, RED).status_code == 200


@pytest.mark.parametrize("kind", [RuntimeError, SurgeryError, StoreError])
def test_a_fault_of_the_service_is_a_logged_500(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: Any
) -> None:
    def broken(*_: Any) -> Any:
        raise kind("/secret/place/model.onnx: cannot run (out of memory)")

    monkeypatch.setattr(predict, "read_logits", broken)
    error = refused(post(client, RED), 500, "internal_error")
    assert "secret" not in json.dumps(error)
    assert "/secret/place/model.onnx: cannot run" in caplog.text
    if kind is RuntimeError:
        return
    files = [("image", ("x.png", data)) for data in (RED, b"no image")]
    several = client.post("/predict", files=files, data={"model": "colours"})
    codes = [result["error"]["code"] for result in several.json()["results"]]
    assert (codes, "secret" in several.text) == (["internal_error", "bad_image"], False)


def test_whoever_waits_for_a_version_to_be_loaded_holds_nobody_up(
    store: Store, serve: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        add_classifier(store)
    client = serve(max_concurrency=2)
    assert post(client, RED, "colours@2").json()["version"] == 2
    begun, go_on, load = threading.Event(), threading.Event(), shelf.load_version

    def slow(*given: Any) -> Any:
        begun.set()
        assert go_on.wait(30)
        return load(*given)

    monkeypatch.setattr(shelf, "load_version", slow)
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(post, client, RED, "colours@3") for _ in range(2)]
        try:
            assert begun.wait(30)
            until(lambda: client.get("/metrics").text.count("surgery_at_work 2") == 1)
            for model in ("colours", "colours@production", "colours@1", "colours@2"):
                answer = post(client, RED, model)
                assert (answer.status_code, answer.json()["version"]) == (200, 2 if "2" in model else 1)
            refused(post(client, RED, "colours@3"), 429, "too_many_requests")
        finally:
            go_on.set()
        assert [each.result().json()["version"] for each in waiting] == [3, 3]


def test_what_may_pass_is_tried_again_and_what_cannot_is_not(
    store: Store, serve: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        add_classifier(store)
    client, load, tried = serve(), shelf.load_version, []

    def failing(stored: Any, *given: Any) -> Any:
        tried.append(stored.version)
        if tried.count(2) == 1 and stored.version == 2:
            raise RuntimeError("the GPU is full")
        if stored.version == 3:
            raise StoreError("damaged")
        return load(stored, *given)

    monkeypatch.setattr(shelf, "load_version", failing)
    monkeypatch.setattr(shelf, "RETRY_S", 0.0)
    for model in ("colours@2", "colours@3", "colours@3"):
        refused(post(client, RED, model), 503, "model_unavailable")
    assert post(client, RED, "colours@2").status_code == 200
    assert tried == [2, 3, 2]


def test_a_version_that_is_removed_is_no_problem_any_more(
    store: Store, serve: Callable[..., TestClient]
) -> None:
    add_classifier(store)
    second = add_classifier(store)
    client = serve(poll_s=0.05)
    second.graph().write_bytes(b"damaged")
    refused(post(client, RED, "colours@2"), 503, "model_unavailable")
    assert len(client.get("/models").json()["problems"]) == 1
    store.remove("colours", 2)
    until(lambda: client.get("/models").json()["problems"] == [])


def guarded(app: Any, messages: list[dict[str, Any]], **settings: Any) -> list[dict[str, Any]]:
    """Run one request through a guard; return what it sent."""
    sent: list[dict[str, Any]] = []
    waiting = iter(messages)

    async def receive() -> dict[str, Any]:
        message = next(waiting, None)
        if message is None:
            await asyncio.sleep(10)
        return message or {}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/predict", "headers": []}
    asyncio.run(Guard(app, Settings(**settings))(scope, receive, send))
    return sent


def test_a_body_that_comes_too_slowly_is_the_clients_fault() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["more_body"]:
            pass

    first = {"type": "http.request", "body": b"x", "more_body": True}
    sent = guarded(app, [first], timeout_s=0.05)
    assert sent[0]["status"] == 408


def test_what_escapes_before_the_answer_is_answered_at_once() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise KeyError("x")

    assert guarded(app, [])[0]["status"] == 500


def test_an_answer_that_broke_off_is_never_followed_by_a_second() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise KeyError("x")

    with pytest.raises(Exception, match="service failed"):
        guarded(app, [])


def test_foreign_errors_lose_their_body_and_keep_their_status() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse("teapot inside", 418)(scope, receive, send)

    start, *rest = guarded(app, [])
    assert start["status"] == 418
    assert b"teapot" not in b"".join(message["body"] for message in rest)


def test_an_empty_store_starts_and_is_not_ready(
    store: Store,
    serve: Callable[..., TestClient],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = serve(poll_s=0.05)
    assert caplog.text.count("surgery finetune") == 1
    assert str(store.root) in caplog.text
    assert client.get("/livez").status_code == 200
    refused(client.get("/readyz"), 503, "not_ready")
    body = client.get("/models").json()
    assert (body["ready"], body["models"]) == (False, [])
    assert "surgery finetune" in body["hint"]
    for model in ("", "cars"):
        answer = client.post("/predict", files={"image": RED}, data={"model": model})
        assert "surgery finetune" in refused(answer, 503, "no_model")["hint"]
    add_classifier(store)
    end = time.monotonic() + 10
    while client.get("/readyz").status_code != 200 and time.monotonic() < end:
        time.sleep(0.02)
    assert client.post("/predict", files={"image": RED}).status_code == 200


def test_a_broken_model_leaves_the_others_alone(store: Store, serve: Callable[..., TestClient]) -> None:
    flipped = add_segmenter(store, "flipped")
    graph = flipped.graph()
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.write_bytes(bytes(data))
    add_segmenter(store, "headless").path.joinpath("manifest.json").write_text("{")
    add_segmenter(store, "halved").graph().unlink()
    add_segmenter(store, "aliasless").path.parent.joinpath("aliases.json").write_text("[")
    store.root.joinpath("file").write_text("x")
    store.root.joinpath("stranger").mkdir()
    store.root.joinpath(".git").mkdir()
    add_classifier(store)
    client = serve()
    assert client.get("/readyz").status_code == 200
    assert post(client, RED).json()["labels"][0]["label"] == "red"
    rows = {row["name"]: row for row in client.get("/models").json()["models"]}
    assert {name: row["state"] for name, row in rows.items()} == {
        "aliasless": "stored",
        "colours": "serving",
        "flipped": "failed",
        "halved": "failed",
        "headless": "failed",
    }
    assert "altered" in rows["flipped"]["reason"]
    problems = client.get("/models").json()["problems"]
    assert {name for name in rows if any(name in line for line in problems)} == set(rows) - {"colours"}
    assert str(store.root) not in client.get("/models").text
    refused(post(client, RED, "flipped"), 503, "model_unavailable")
    refused(post(client, RED, "headless"), 503, "model_unavailable")
    refused(post(client, RED, "aliasless"), 503, "model_unavailable")


def test_a_version_that_answers_otherwise_than_when_it_was_made_is_refused(
    store: Store, serve: Callable[..., TestClient]
) -> None:
    add_classifier(store)
    client = serve()
    image = np.full((24, 32, 3), 100, np.uint8)
    add_classifier(store, asked=(image, np.array([1, 1, 1], np.float32)))
    add_classifier(store, asked=(image, np.array([1, 1, 2], np.float32)))
    assert post(client, RED, "colours@2").json()["version"] == 2
    error = refused(post(client, RED, "colours@3"), 503, "model_unavailable")
    assert "test image" in error["message"]
    assert str(store.root) not in json.dumps(error)


def test_a_graph_that_does_not_fit_its_manifest_is_not_served(
    store: Store, serve: Callable[..., TestClient]
) -> None:
    from dataclasses import replace

    import onnx
    from tiny_models import segmenter_graph

    manifest = add_classifier(store, "other").manifest
    with store.stage("wrong") as staging:
        onnx.save(segmenter_graph(), staging.path / "model.onnx")
        staging.commit(replace(manifest, name="wrong"))
    with store.stage("garbage") as staging:
        staging.path.joinpath("model.onnx").write_bytes(b"no graph")
        staging.commit(replace(manifest, name="garbage"))
    client = serve()
    for name in ("wrong", "garbage"):
        refused(post(client, RED, name), 503, "model_unavailable")
    assert post(client, RED, "other").status_code == 200


def test_a_broken_promotion_leaves_the_last_good_version_and_a_repair_is_noticed(
    store: Store, serve: Callable[..., TestClient]
) -> None:
    add_classifier(store)
    client = serve(poll_s=0.05)
    second = add_classifier(store, scale=-SCALE)
    whole = second.graph().read_bytes()
    store.promote("colours", 2)
    second.graph().write_bytes(whole[:-1])  # may come before or after the service has loaded it
    third = add_classifier(store, scale=2 * SCALE)
    whole = third.graph().read_bytes()
    third.graph().write_bytes(whole[:-1])
    store.root.joinpath("colours", "aliases.json").write_text('{"production": 3}')
    until(lambda: client.get("/models").json()["models"][2]["state"] == "failed")
    assert post(client, RED).json()["version"] in (1, 2)
    third.graph().write_bytes(whole)
    until(lambda: post(client, RED).json()["version"] == 3)


def test_many_refusals_are_held_back_and_few_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, waits = [0.0], []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr("service.limits.time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr("service.limits.asyncio", SimpleNamespace(sleep=sleep))
    brake = Brake()

    def refuse(count: int) -> int:
        before = len(waits)
        for _ in range(count):
            asyncio.run(brake.hold())
        return len(waits) - before

    assert refuse(Brake.FREE) == 0
    assert refuse(50) == 50
    low, high = Brake.HOLD_S
    assert all(low <= wait <= high for wait in waits)
    assert len(set(waits)) > 40, "they would all come again together"
    clock[0] += 0.5
    assert refuse(Brake.FREE) == Brake.FREE - Brake.FREE // 2
    clock[0] += 60
    assert refuse(Brake.FREE) == 0
    clock[0] += 60
    brake._held = Brake.MOST
    assert refuse(3 * Brake.FREE) == 0
