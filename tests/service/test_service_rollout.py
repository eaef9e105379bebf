"""A candidate beside production over HTTP: who answers, who only looks on, and that production never suffers."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient
from test_service_faults import refused
from tiny_models import RED, SCALE, add_classifier, add_segmenter, plain

from service import limits, shadow, shelf
from service.access import log
from service.pace import Pace
from surgery.artifact.errors import SurgeryError
from surgery.artifact.manifest import InputSpec
from surgery.artifact.store import Store

GREEN, BLUE = plain((0, 255, 0)), plain((0, 0, 255))
KEYS = [f"user-{k}" for k in range(30)]
Serve = Callable[..., TestClient]


@pytest.fixture
def two(store: Store) -> Store:
    """A store of colours@1, which is production, and colours@2, which answers the opposite."""
    add_classifier(store)
    add_classifier(store, scale=-SCALE)
    return store


class Network:
    """Stands before a candidate's network: notes what it gets, and fails or hangs if told to."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.device, self.explains, self.run_explained = (
            session.device,
            session.explains,
            session.run_explained,
        )
        self.shapes: list[tuple[int, ...]] = []
        self.nice: list[int] = []
        self.fails: Callable[[np.ndarray], bool] = lambda images: False
        self.error: Exception = RuntimeError("the network is broken")
        self.go_on = threading.Event()
        self.go_on.set()

    def run(self, images: np.ndarray) -> Any:
        self.shapes.append(images.shape)
        self.nice.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        self.go_on.wait(20)
        if self.fails(images):
            raise self.error
        return self.session.run(images)


@pytest.fixture
def candidate(monkeypatch: pytest.MonkeyPatch) -> list[Network]:
    """Put a network of ours before that of each version but the first; gives those that were loaded."""
    loaded: list[Network] = []
    load = shelf.load_version

    def load_version(stored: Any, *given: Any) -> Any:
        served = load(stored, *given)
        if stored.version == 1:
            return served
        loaded.append(Network(served.session))
        return replace(served, session=loaded[-1], pace=Pace(), narrow=None)

    monkeypatch.setattr(shelf, "load_version", load_version)
    return loaded


def ask(client: TestClient, image: bytes = RED, model: str = "colours", key: str = "", **data: Any) -> Any:
    headers = {"X-Request-Key": key} if key else {}
    files = {"image": ("photo.png", image)}
    return client.post("/predict", files=files, data={"model": model, **data}, headers=headers)


def version(client: TestClient, *given: Any, **named: Any) -> int:
    answer = ask(client, *given, **named)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-surgery-version"] == str(answer.json()["version"])
    return int(answer.json()["version"])


def compare(client: TestClient, model: str = "colours") -> Any:
    answer = client.get("/compare", params={"model": model})
    assert answer.status_code == 200, answer.text
    return answer.json()


def until(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not reached():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


def counted(client: TestClient, kind: str, outcome: str) -> float:
    start = f'surgery_{kind}_total{{model="colours",outcome="{outcome}",version="2"}} '
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.removeprefix(start)) for line in lines if line.startswith(start))


def test_a_shadow_changes_no_answer_and_its_disagreements_are_told(two: Store, serve: Serve) -> None:
    images = [RED, GREEN, BLUE, plain((9, 9, 9))]  # of grey all is equal, and the first class wins twice
    before = [ask(serve(), image).json() for image in images]
    two.start_rollout("colours", 2, "shadow", 1)
    client = serve()
    after = [ask(client, image).json() for image in images]
    assert [body.pop("milliseconds") and body for body in after] == [
        body.pop("milliseconds") and body for body in before
    ]
    until(lambda: compare(client)["compared"] == 4)
    body = compare(client)
    assert (body["kind"], body["share"], body["agreed"], body["agreement"]) == ("shadow", 1.0, 1, 0.25)
    assert [row["sha256"] for row in body["disagreements"]] == [
        hashlib.sha256(image).hexdigest() for image in images[:3]
    ]
    first = body["disagreements"][0]
    assert first["production"]["labels"] == [before[0]["labels"][0]]
    assert first["candidate"]["labels"][0]["label"] == "green"
    for who, number in (("production", 1), ("candidate", 2)):
        assert (body[who]["version"], body[who]["answered"], body[who]["errors"]) == (number, 4, 0)
        assert 0 < body[who]["milliseconds"]["p50"] <= body[who]["milliseconds"]["p95"]
    assert [counted(client, "shadow", outcome) for outcome in ("agreed", "differed")] == [1, 3]


def test_a_shadow_sees_its_share(two: Store, serve: Serve) -> None:
    two.start_rollout("colours", 2, "shadow", 0.3)
    client = serve()
    digests = [hashlib.sha256(f"colours@2\n{key}".encode()).hexdigest() for key in KEYS]
    wanted = sum(int(digest[:16], 16) / 16**16 < 0.3 for digest in digests)
    for key in KEYS:
        assert version(client, key=key) == 1
    until(lambda: compare(client)["compared"] == wanted)
    time.sleep(0.1)
    assert compare(client)["compared"] == wanted < len(KEYS)


def test_a_shadow_of_masks(store: Store, serve: Serve) -> None:
    add_segmenter(store), add_segmenter(store)
    store.start_rollout("cars", 2, "shadow", 1)
    client = serve()
    for outputs in ("mask", "rle"):
        assert ask(client, RED, "cars", outputs=outputs).status_code == 200
    until(lambda: compare(client, "cars")["compared"] == 2)
    assert compare(client, "cars")["agreement"] == 1


def test_each_image_of_a_request_is_shown(two: Store, serve: Serve) -> None:
    two.start_rollout("colours", 2, "shadow", 1)
    client = serve()
    files = [("image", ("x.png", data)) for data in (RED, b"no image", BLUE)]
    assert client.post("/predict", files=files).status_code == 200
    until(lambda: compare(client)["compared"] == 2)
    found = [row["sha256"] for row in compare(client)["disagreements"]]
    assert found == [hashlib.sha256(image).hexdigest() for image in (RED, BLUE)]


def test_production_answers_while_the_candidate_hangs(
    two: Store, serve: Serve, candidate: list[Network], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadow, "MAX_WAITING", 2)
    two.start_rollout("colours", 2, "shadow", 1)
    client = serve()
    candidate[0].go_on.clear()
    try:
        assert version(client) == 1
        until(lambda: len(candidate[0].shapes) == 1)
        for _ in range(5):  # two wait, three are dropped
            assert version(client) == 1
        assert (compare(client)["dropped"], compare(client)["compared"]) == (3, 0)
    finally:
        candidate[0].go_on.set()
    until(lambda: compare(client)["compared"] == 3)
    assert counted(client, "shadow", "dropped") == 3


def test_what_waits_is_bounded_in_memory(
    two: Store, serve: Serve, candidate: list[Network], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadow, "MAX_WAITING_BYTES", 2 * len(RED))
    two.start_rollout("colours", 2, "shadow", 1)
    client = serve()
    candidate[0].go_on.clear()
    try:
        assert version(client) == 1
        until(lambda: len(candidate[0].shapes) == 1)
        for _ in range(3):
            assert version(client) == 1
        assert compare(client)["dropped"] == 1
    finally:
        candidate[0].go_on.set()
    until(lambda: compare(client)["compared"] == 3)
    assert version(client) == 1
    until(lambda: compare(client)["compared"] == 4)


def test_the_answer_goes_out_before_the_candidate_sees_the_image(
    two: Store, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    send, show = limits.Exchange.send, shadow.Shadow.show

    async def sending(self: Any, message: Any) -> None:
        await send(self, message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            events.append("answered")

    def showing(self: Any, seen: Any) -> None:
        events.append("shown")
        show(self, seen)

    monkeypatch.setattr(limits.Exchange, "send", sending)
    monkeypatch.setattr(shadow.Shadow, "show", showing)
    two.start_rollout("colours", 2, "shadow", 1)
    assert version(serve()) == 1
    assert events == ["answered", "shown"]


def test_the_candidate_of_a_shadow_runs_in_one_thread_of_the_lowest_priority(
    two: Store, serve: Serve, candidate: list[Network]
) -> None:
    two.start_rollout("colours", 2, "shadow", 1)
    client = serve(threads=3)
    version(client)
    until(lambda: compare(client)["compared"] == 1)
    assert candidate[0].nice[-1] == 19
    assert candidate[0].session.graph.get_session_options().intra_op_num_threads == 1


def test_the_candidate_gets_the_image_as_its_own_manifest_says(
    two: Store, serve: Serve, candidate: list[Network], monkeypatch: pytest.MonkeyPatch
) -> None:
    load = shelf.load_version

    def load_version(stored: Any, *given: Any) -> Any:
        served = load(stored, *given)
        if stored.version == 1:
            return served
        return replace(served, manifest=replace(served.manifest, input=InputSpec("resize", 8, 6)))

    monkeypatch.setattr(shelf, "load_version", load_version)
    two.start_rollout("colours", 2, "shadow", 1)
    client = serve()
    version(client)
    until(lambda: compare(client)["compared"] == 1)
    assert candidate[0].shapes[-1] == (1, 6, 8, 3)


def test_a_canary_answers_its_share_and_the_same_keys_in_every_process(two: Store, serve: Serve) -> None:
    two.start_rollout("colours", 2, "canary", 0.3)
    first, second = serve(), serve()
    found = [version(first, key=key) for key in KEYS]
    assert found == [version(second, key=key) for key in KEYS]
    assert found == [version(first, BLUE, key=key) for key in KEYS]
    digests = [hashlib.sha256(f"colours@2\n{key}".encode()).hexdigest() for key in KEYS]
    assert found == [2 if int(digest[:16], 16) / 16**16 < 0.3 else 1 for digest in digests]
    assert 2 in found
    body = compare(second)
    assert body["candidate"]["answered"] == found.count(2)
    assert body["production"]["answered"] == found.count(1)
    assert counted(second, "canary", "answered") == found.count(2)


def test_without_a_key_the_image_decides(two: Store, serve: Serve) -> None:
    two.start_rollout("colours", 2, "canary", 0.5)
    client = serve()
    for red in range(0, 250, 20):
        image = plain((red, 0, 0))
        digest = hashlib.sha256(f"colours@2\n{hashlib.sha256(image).hexdigest()}".encode()).hexdigest()
        assert version(client, image) == (2 if digest < "8" else 1)


def test_a_version_that_is_named_is_the_one_that_answers(two: Store, serve: Serve) -> None:
    (two.root / "colours" / "aliases.json").write_text('{"production": 1, "night": 1, "previous": 2}')
    two.start_rollout("colours", 2, "canary", 1)
    client = serve()
    wanted = {"colours": 2, "colours@production": 2, "colours@1": 1, "colours@2": 2, "colours@night": 1}
    assert {model: version(client, model=model) for model in wanted} == wanted
    assert client.post("/predict", files={"image": RED}).json()["version"] == 2
    assert compare(client)["candidate"]["answered"] == 3


@pytest.mark.parametrize("error", [RuntimeError("broken"), SurgeryError("out of memory")])
def test_whoever_the_candidate_fails_is_answered_by_production(
    two: Store, serve: Serve, candidate: list[Network], error: Exception
) -> None:
    two.start_rollout("colours", 2, "canary", 1)
    client = serve()
    candidate[0].error = error
    candidate[0].fails = lambda images: images.max() == 255
    assert version(client, plain((9, 0, 0))) == 2
    assert version(client, RED) == 1
    files = [("image", ("x.png", data)) for data in (plain((9, 0, 0)), RED)]
    several = client.post("/predict", files=files).json()
    assert several["version"] == 1
    assert [result["labels"][0]["label"] for result in several["results"]] == ["red", "red"]
    body = compare(client)
    assert (body["candidate"]["answered"], body["candidate"]["errors"]) == (1, 2)
    assert (body["production"]["answered"], body["production"]["errors"]) == (2, 0)
    assert "stopped" not in body
    assert counted(client, "canary", "failed") == 2


def test_a_candidate_that_hangs_leaves_time_for_production(
    two: Store, serve: Serve, candidate: list[Network]
) -> None:
    two.start_rollout("colours", 2, "canary", 1)
    client = serve(timeout_s=2)
    candidate[0].go_on.clear()
    try:
        assert version(client) == 1
        assert version(client, model="colours@1") == 1
    finally:
        candidate[0].go_on.set()
    assert compare(client)["candidate"]["errors"] == 1


def test_candidates_that_hang_take_no_place_of_production(
    two: Store, serve: Serve, candidate: list[Network]
) -> None:
    two.start_rollout("colours", 2, "canary", 1)
    client = serve(timeout_s=20, max_concurrency=2)
    candidate[0].go_on.clear()
    with ThreadPoolExecutor(3) as pool:
        hanging = [pool.submit(version, client) for _ in range(3)]
        try:
            until(lambda: len(candidate[0].shapes) == 1)
            assert version(client, model="colours@1") == 1
            assert not any(each.done() for each in hanging)  # they are still waited for
        finally:
            candidate[0].go_on.set()
        assert {each.result() for each in hanging} == {2}


def test_what_the_client_did_wrong_is_no_error_of_the_candidate(two: Store, serve: Serve) -> None:
    two.start_rollout("colours", 2, "canary", 1)
    client = serve()
    for _ in range(6):
        refused(ask(client, b"no image"), 400, "bad_image")
        refused(ask(client, top_k="0"), 422, "bad_option")
    body = compare(client)
    assert (body["candidate"]["errors"], body["production"]["errors"]) == (0, 0)
    assert version(client) == 2


def test_what_the_candidate_cannot_give_production_gives(store: Store, serve: Serve) -> None:
    add_classifier(store)
    add_classifier(store, explains=False)
    store.start_rollout("colours", 2, "canary", 1)
    client = serve()
    assert version(client) == 2
    assert version(client, explain="true") == 1
    assert compare(client)["candidate"]["errors"] == 0
    assert counted(client, "canary", "refused") == 1


@pytest.mark.parametrize("kind", ["shadow", "canary"])
def test_a_candidate_that_keeps_failing_is_stopped_until_the_rollout_changes(
    two: Store, serve: Serve, candidate: list[Network], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    told: list[str] = []
    monkeypatch.setattr(log, "error", lambda form, *given: told.append(form % given))
    two.start_rollout("colours", 2, kind, 1)
    client = serve(poll_s=0.05)
    candidate[0].fails = lambda images: True
    for k in range(5):
        assert version(client) == 1
        until(lambda k=k: compare(client)["candidate"]["errors"] == k + 1)
    runs = len(candidate[0].shapes)
    for _ in range(3):
        assert version(client) == 1
    add_classifier(two, "other")  # whatever else the service notices in the store
    until(lambda: ask(client, model="other").status_code == 200)
    assert len(candidate[0].shapes) == runs
    assert counted(client, kind, "failed") == 5
    body, models = compare(client), client.get("/models").json()
    assert "5 of its last 5 answers failed" in body["stopped"]
    assert "the network is broken" in body["stopped"]
    assert [row.get("rollout") for row in models["models"]][:2] == [
        None,
        {"kind": kind, "share": 1.0, "stopped": body["stopped"]},
    ]
    assert any("colours@2 is stopped" in line for line in models["problems"])
    assert told == [line for line in models["problems"] if "is stopped" in line]
    add_classifier(two)
    two.promote("colours", 3)
    until(lambda: compare(client)["production"]["version"] == 3)
    assert compare(client)["stopped"] == body["stopped"]
    two.start_rollout("colours", 2, kind, 1)
    until(lambda: "stopped" not in compare(client))
    assert compare(client)["candidate"]["errors"] == 0
    assert client.get("/models").json()["problems"] == []


def test_no_path_of_the_server_is_told(two: Store, serve: Serve, candidate: list[Network]) -> None:
    two.start_rollout("colours", 2, "canary", 1)
    client = serve()

    candidate[0].fails = lambda images: True
    candidate[0].error = SurgeryError(f"{two.root}/colours/2/model.onnx: cannot run")
    for _ in range(5):
        assert version(client) == 1
    assert "colours/2/model.onnx: cannot run" in compare(client)["stopped"]
    for path in ("/compare?model=colours", "/models"):
        assert str(two.root) not in client.get(path).text


def test_a_change_of_the_rollout_is_noticed(two: Store, serve: Serve) -> None:
    client = serve(poll_s=0.05)
    error = refused(client.get("/compare?model=colours"), 404, "no_rollout")
    assert "surgery models shadow colours VERSION" in error["hint"]
    two.start_rollout("colours", 2, "canary", 1)
    until(lambda: version(client) == 2)
    rows = client.get("/models").json()["models"]
    assert [(row["state"], row.get("rollout")) for row in rows] == [
        ("serving", None),
        ("loaded", {"kind": "canary", "share": 1.0}),
    ]
    two.start_rollout("colours", 2, "shadow", 1)
    until(lambda: version(client) == 1)
    two.end_rollout("colours")
    until(lambda: client.get("/compare?model=colours").status_code == 404)


def test_a_candidate_that_is_promoted_serves(two: Store, serve: Serve, candidate: list[Network]) -> None:
    two.start_rollout("colours", 2, "canary", 0.1)
    client = serve(poll_s=0.05)
    two.promote("colours", 2)
    until(lambda: version(client) == 2)
    assert all(version(client, key=key) == 2 for key in KEYS)
    until(lambda: client.get("/compare").status_code == 404)
    assert len(candidate) == 1


def test_another_production_begins_the_comparison_anew(two: Store, serve: Serve) -> None:
    add_classifier(two)
    two.start_rollout("colours", 2, "shadow", 1)
    client = serve(poll_s=0.05)
    version(client)
    until(lambda: compare(client)["compared"] == 1)
    two.promote("colours", 3)
    until(lambda: compare(client)["production"]["version"] == 3)
    assert compare(client)["compared"] == 0


def test_a_damaged_rollout_is_said_and_its_repair_noticed(two: Store, serve: Serve) -> None:
    path = two.root / "colours" / "rollout.json"
    path.write_text('{"schema": 1, "kind": "can')
    client = serve(poll_s=0.05)
    assert version(client) == 1
    (problem,) = client.get("/models").json()["problems"]
    assert "colours has no rollout, production answers: colours/rollout.json: not JSON" in problem
    error = refused(client.get("/compare?model=colours"), 404, "no_rollout")
    assert "rollout.json" in error["message"]
    assert str(two.root) not in error["message"]
    path.write_text(json.dumps({"schema": 1, "kind": "canary", "version": 2, "share": 1}))
    until(lambda: version(client) == 2)
    assert client.get("/models").json()["problems"] == []
    path.write_text("x" * path.stat().st_size)
    until(lambda: version(client) == 1)


@pytest.mark.parametrize("kind", ["shadow", "canary"])
def test_a_candidate_that_cannot_be_loaded_is_a_problem_of_its_own(
    two: Store, serve: Serve, kind: str
) -> None:
    two.start_rollout("colours", 2, kind, 1)
    graph = two.resolve("colours@2").graph()
    whole = graph.read_bytes()
    graph.write_bytes(whole[:-1])
    client = serve(poll_s=0.05)
    assert version(client) == 1
    (problem,) = client.get("/models").json()["problems"]
    assert "altered or half-copied" in problem
    assert [row["state"] for row in client.get("/models").json()["models"]] == ["serving", "failed"]
    graph.write_bytes(whole)
    until(lambda: client.get("/compare?model=colours").status_code == 200)


def test_production_is_not_compared_with_itself(two: Store, serve: Serve) -> None:
    plan = {"schema": 1, "kind": "shadow", "version": 1, "share": 1}
    (two.root / "colours" / "rollout.json").write_text(json.dumps(plan))
    client = serve()
    refused(client.get("/compare"), 404, "no_rollout")
    assert client.get("/models").json()["problems"] == []


def test_a_candidate_of_another_task_is_not_tried(store: Store, serve: Serve) -> None:
    add_classifier(store)
    add_segmenter(store, "colours")
    plan = {"schema": 1, "kind": "canary", "version": 2, "share": 1}
    (store.root / "colours" / "rollout.json").write_text(json.dumps(plan))
    client = serve()
    assert version(client) == 1
    assert "does 'segment', production 'classify'" in client.get("/models").json()["problems"][0]


def test_comparisons_that_are_not_there(two: Store, serve: Serve) -> None:
    add_classifier(two, "other")
    client = serve()
    refused(client.get("/compare"), 400, "model_required")
    refused(client.get("/compare?model=boats"), 404, "model_not_found")
    refused(client.get("/compare?model=colours@2"), 400, "bad_model_name")
    refused(client.post("/compare"), 405, "method_not_allowed")


def test_the_service_writes_nothing_to_the_store(two: Store, serve: Serve) -> None:
    two.start_rollout("colours", 2, "shadow", 1)
    before = {path: path.stat().st_mtime_ns for path in two.root.rglob("*")}
    client = serve(poll_s=0.05)
    for image in (RED, BLUE):
        version(client, image)
    until(lambda: compare(client)["compared"] == 2)
    assert {path: path.stat().st_mtime_ns for path in two.root.rglob("*")} == before
