"""`surgery models shadow`, `canary` and `compare` change what they say, and print what a service answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from test_models_recipe import MANIFEST

from surgery.artifact.store import Store
from surgery.cli import main
from surgery.recipes.compare import TOKEN

SIDE = {"version": 1, "answered": 8, "errors": 0, "milliseconds": {"p50": 4.25, "p95": 9.0}}
SHADOW = {
    "model": "cars",
    "kind": "shadow",
    "share": 0.2,
    "since": "2025-01-31T12:00:00+00:00",
    "production": SIDE,
    "candidate": {**SIDE, "version": 2, "errors": 3, "milliseconds": {"p50": None, "p95": None}},
    "compared": 8,
    "agreed": 6,
    "agreement": 0.75,
    "dropped": 4,
    "disagreements": [
        {
            "sha256": "ab" * 32,
            "production": {"labels": [{"label": "[red]", "probability": 0.91}]},
            "candidate": {"labels": []},
        },
        {
            "sha256": "cd" * 32,
            "overlap": 0.5,
            "production": {"pixels": {"rest": 0.5, "car": 0.5}},
            "candidate": {"pixels": {"rest": 1.0, "car": 0.0}},
        },
    ],
}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store of cars@1, which is production, and cars@2."""
    monkeypatch.setenv("SURGERY_MODELS", str(tmp_path / "models"))
    store = Store()
    for _ in range(2):
        with store.stage("cars") as staging:
            (staging.path / "model.onnx").write_bytes(b"x")
            staging.commit(MANIFEST)
    return store


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["models", *words])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_start_and_end(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "shadow", "cars", "2", "--share", "0.25")
    assert (code, out) == (0, "cars@2 sees 25 % of the images of cars behind production's back\n")
    assert "next: surgery models compare cars, or surgery models shadow cars --off" in err
    plan = store.rollout("cars")
    assert plan is not None
    assert (plan.kind, plan.version, plan.share) == ("shadow", 2, 0.25)
    code, out, err = run(capsys, "canary", "cars", "2", "--json")
    values = json.loads(out)["rollout"]
    assert (code, values["kind"], values["version"], values["share"]) == (0, "canary", 2, 0.1)
    code, out, err = run(capsys, "shadow", "cars", "--off")
    assert code == 2
    assert "cars has a canary, not a shadow" in err
    assert run(capsys, "canary", "cars", "--off")[:2] == (
        0,
        "the canary of cars@2 is over; production answers everything\n",
    )
    assert store.rollout("cars") is None
    assert run(capsys, "canary", "cars", "--off")[:2] == (0, "nothing runs beside production of cars\n")
    assert run(capsys, "canary", "cars", "--off", "--json")[1] == '{"model": "cars", "rollout": null}\n'


def test_the_list_shows_it(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "canary", "cars", "2")
    rows = json.loads(run(capsys, "list", "--json")[1])["versions"]
    assert [row["rollout"] for row in rows] == [None, {"kind": "canary", "share": 0.1}]
    lines = [" ".join(line.split()) for line in run(capsys, "list")[1].splitlines()]
    assert lines[-1].startswith("cars@2 canary 0.1 segment")
    (store.root / "cars" / "rollout.json").write_text("{")
    code, out, err = run(capsys, "list")
    assert code == 0
    assert "cars@2" in out
    assert "rollout.json: not JSON" in err.replace("\n", "")


def test_promote_on_a_share_is_a_canary(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "promote", "cars", "2", "--canary", "0.1")[0] == 0
    plan = store.rollout("cars")
    assert plan is not None
    assert (plan.kind, plan.share) == ("canary", 0.1)
    assert store.resolve("cars").version == 1
    assert run(capsys, "promote", "cars", "2")[0] == 0
    assert store.rollout("cars") is None
    assert store.resolve("cars").version == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["shadow", "cars"], "name a version"),
        (["shadow", "cars", "2", "--off"], "name a version"),
        (["canary", "cars", "1"], "production itself"),
        (["canary", "cars", "9"], "no version 9"),
        (["canary", "cars", "2", "--share", "0"], "more than 0 and at most 1"),
        (["promote", "cars", "2", "--canary", "1.5"], "more than 0 and at most 1"),
        (["shadow", "boats", "--off"], "no model 'boats'"),
    ],
)
def test_a_mistake_ends_with_2(
    store: Store, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "")
    assert said in err
    assert store.rollout("cars") is None


def test_a_damaged_rollout_is_ended_by_either_word(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    path = store.root / "cars" / "rollout.json"
    path.write_text("{")
    assert run(capsys, "shadow", "cars", "--off")[0] == 0
    assert not path.exists()


class Service(ThreadingHTTPServer):
    """Answers every request with what it is told to, and notes it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status, self.body = 200, json.dumps(SHADOW)
        self.header: tuple[str, str] | None = None
        self.asked: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Service

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers["Authorization"]))
        self.send_response(self.server.status)
        if self.server.header:
            self.send_header(*self.server.header)
        self.end_headers()
        self.wfile.write(self.server.body.encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.delenv(TOKEN, raising=False)
    with Service() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_what_the_service_found_out(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "compare", "cars", "--url", service.url)
    assert code == 0
    assert service.asked == [("/compare?model=cars", None)]
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[0] == "shadow of cars@2 beside cars@1, 20 % of the requests, since 2025-01-31T12:00:00+00:00"
    assert "production 1 8 0 4.2 9.0" in lines
    assert "candidate 2 8 3" in lines
    assert "6 of 8 answers agree (75.0 %); 4 images dropped" in lines
    assert lines[-2:] == [
        f"{'cd' * 32} rest 50.0 %, car 50.0 % rest 100.0 %",
        f"{'ab' * 32} [red] 0.91 none",
    ]
    assert "next: surgery models promote cars 2, or surgery models shadow cars --off" in err


def test_json_is_the_services_own(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "compare", "cars", "--url", f"{service.url}/", "--json")
    assert (code, json.loads(out), err) == (0, SHADOW, "")


def test_a_canary_that_was_stopped(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    kept = ("model", "share", "since", "production", "candidate")
    body = {
        **{key: SHADOW[key] for key in kept},
        "kind": "canary",
        "stopped": "5 of its last 5 answers failed",
    }
    service.body = json.dumps(body)
    code, out, err = run(capsys, "compare", "cars", "--url", service.url)
    assert code == 0
    assert "stopped: 5 of its last 5 answers failed" in out
    assert "agree" not in out
    assert "surgery models canary cars --off" in err


def test_the_token_is_an_option_or_in_the_environment(
    service: Service, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN, "sesame")
    run(capsys, "compare", "cars", "--url", service.url)
    run(capsys, "compare", "cars", "--url", service.url, "--token", "open")
    assert [token for _, token in service.asked] == ["Bearer sesame", "Bearer open"]


def test_the_token_is_not_carried_elsewhere(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    service.status, service.header = 302, ("Location", f"{service.url}/elsewhere")
    code, _, err = run(capsys, "compare", "cars", "--url", service.url, "--token", "open")
    assert code == 2
    assert "status 302" in err
    assert len(service.asked) == 1


def test_a_token_that_cannot_be_sent_is_not_repeated(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(capsys, "compare", "cars", "--url", service.url, "--token", "sesame\nopen")
    assert code == 2
    assert "printable ASCII" in err
    assert "sesame" not in err


def test_this_machine_is_asked_without_a_proxy(
    service: Service, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert run(capsys, "compare", "cars", "--url", service.url)[0] == 0


ERROR = json.dumps({"error": {"code": "x", "message": "said by the service", "hint": "do that"}})


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, ERROR, f"give --token, or set {TOKEN}"),
        (404, ERROR, "said by the service\ndo that"),
        (503, ERROR, "said by the service\ndo that"),
        (500, "<html>", "status 500"),
        (404, "[]", "status 404"),
        (200, "<html>", "no service answers"),
        (200, "[]", "another service"),
        (200, "{}", "another service"),
    ],
)
def test_a_refusal_ends_with_2(
    service: Service, capsys: pytest.CaptureFixture[str], status: int, body: str, said: str
) -> None:
    service.status, service.body = status, body
    code, out, err = run(capsys, "compare", "cars", "--url", service.url)
    assert (code, out) == (2, "")
    assert said in err


@pytest.mark.parametrize(
    "url", ["127.0.0.1:3000", "file:///etc/hostname", "http://", "http://[", "http://a:b", "x"]
)
def test_what_is_no_address(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "compare", "cars", "--url", url)
    assert code == 2
    assert "no address" in err


def test_nobody_there(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "compare", "cars", "--url", "http://127.0.0.1:9", "--json")
    assert code == 2
    assert "bentoml serve" in err
    assert json.loads(out)["error"]["code"] == "bad_input"
