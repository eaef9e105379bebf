"""The service as users start it: `bentoml serve`, a bento, and what is loaded with it."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import httpx
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tiny_models import RED, add_classifier, add_segmenter

from surgery.artifact.store import Store

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"torch", "timm", "segmentation_models_pytorch", "albumentations", "sklearn"}


def environment(home: Path, **further: str) -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("BENTOML", "SURGERY"))}
    return {**inherited, "BENTOML_HOME": str(home), **further}


def run_python(code: str, cwd: Path, home: Path, **further: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env=environment(home, **further),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def server(store: Store, tmp_path: Path) -> Iterator[str]:
    """`bentoml serve` in the root of the repository, on a free port; gives its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "bentoml", "serve", "--host", "127.0.0.1", "--port", str(port)]
    log = (tmp_path / "log").open("w+")
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment(tmp_path / "home", SURGERY_MODELS=str(store.root)),
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(url, process, tmp_path / "log")
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        log.close()


def wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 90
    while time.monotonic() < end and process.poll() is None:
        try:
            if httpx.get(f"{url}/readyz", timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise AssertionError(f"the service did not become ready:\n{log.read_text()}")


def test_bentoml_serve_answers(store: Store, request: pytest.FixtureRequest) -> None:
    import bentoml

    add_classifier(store)
    add_segmenter(store)
    url = request.getfixturevalue("server")
    answer = httpx.post(f"{url}/predict", files={"image": RED}, data={"model": "colours"})
    assert answer.json()["labels"][0]["label"] == "red"
    mask = httpx.post(
        f"{url}/predict?model=cars",
        content=RED,
        headers={"Content-Type": "image/png", "Accept": "image/png"},
    )
    assert mask.content.startswith(b"\x89PNG")
    bad = httpx.post(f"{url}/predict", files={"image": b"x"}, data={"model": "colours"})
    assert (bad.status_code, bad.json()["error"]["code"]) == (400, "bad_image")
    large = httpx.post(f"{url}/predict", files={"image": b"x" * (33 << 20)}, timeout=30)
    assert (large.status_code, large.json()["error"]["code"]) == (413, "body_too_large")
    metrics = httpx.get(f"{url}/metrics").text  # of all processes together
    assert re.search(
        r'surgery_requests_total\{model="colours",path="/predict",status="200",version="1"\} 1\.0', metrics
    )
    assert httpx.get(f"{url}/openapi.json").json()["paths"]["/predict"]
    picture = store.root.parent / "red.png"
    picture.write_bytes(RED)
    with bentoml.SyncHTTPClient(url) as client:
        body = client.predict(image=picture, model="colours")
        assert body["labels"][0]["label"] == "red"


def test_a_mistake_in_the_environment_stops_the_start_and_is_named(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bentoml", "serve", "--host", "127.0.0.1", "--port", "1"],
        cwd=ROOT,
        env=environment(tmp_path, SURGERY_TIMEOUT_S="soon"),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    assert "SURGERY_TIMEOUT_S='soon'" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_service_loads_nothing_heavy_and_reports_to_nobody(store: Store, tmp_path: Path) -> None:
    add_classifier(store)
    code = """
import json, os, sys
import bentoml
from bentoml._internal.utils.analytics import usage_stats
assert not usage_stats.do_not_track()  # as the command does before it loads the service
import service.app
early = sorted(m for m in sys.modules if "." not in m)
from starlette.testclient import TestClient
with TestClient(service.app.svc.to_asgi()) as client:
    image = open(os.environ["PICTURE"], "rb")
    assert client.post("/predict", files={"image": image}).status_code == 200
late = sorted(m for m in sys.modules if "." not in m)
print(json.dumps([early, late, usage_stats.do_not_track()]))
"""
    picture = tmp_path / "red.png"
    picture.write_bytes(RED)
    printed = run_python(code, ROOT, tmp_path, SURGERY_MODELS=str(store.root), PICTURE=str(picture))
    early, late, silent = json.loads(printed.splitlines()[-1])
    assert not HEAVY & set(late)
    assert "onnxruntime" not in early
    assert "onnxruntime" in late
    assert silent is True


def bento_pins() -> list[str]:
    packages: list[str] = yaml.safe_load((ROOT / "bentofile.yaml").read_text())["python"]["packages"]
    return packages


def test_bento_pins_are_those_of_the_lock() -> None:
    bento = yaml.safe_load((ROOT / "bentofile.yaml").read_text())
    lock = set(re.findall(r"^([\w.-]+==[\w.]+)", (ROOT / "requirements.lock").read_text(), re.M))
    pins = bento_pins()
    assert set(pins) <= lock
    assert not HEAVY & {pin.split("==")[0] for pin in pins}
    assert bento["python"]["lock_packages"] is False


def test_a_bento_holds_every_package_that_its_code_names() -> None:
    names: set[str] = set()
    for path in [*(ROOT / "service").rglob("*.py"), *(ROOT / "surgery" / "artifact").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names.add(str(node.module).split(".")[0])
    of_module = metadata.packages_distributions()
    wanted = {name: of_module[name] for name in names - sys.stdlib_module_names - {"service", "surgery"}}
    queue = [Requirement(pin) for pin in bento_pins()]
    brought: set[str] = set()
    while queue:
        name = canonicalize_name(queue.pop().name)
        if name in brought:
            continue
        brought.add(name)
        with suppress(metadata.PackageNotFoundError):  # of another system
            needs = [Requirement(line) for line in metadata.requires(name) or ()]
            queue += [need for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    missing = {k: v for k, v in wanted.items() if not brought & {canonicalize_name(each) for each in v}}
    assert not missing
    assert {"bentoml", "numpy", "cv2"} <= set(wanted)


def test_bentoml_build_makes_a_bento_that_answers_by_itself(tmp_path: Path) -> None:
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns("__pycache__")
    for part in ("service", "surgery"):
        shutil.copytree(ROOT / part, source / part, ignore=ignored)
    shutil.copy(ROOT / "bentofile.yaml", source)
    store = Store(source / "models")
    add_classifier(store)
    with store.stage("colours") as staging:
        staging.path.joinpath("half").write_text("x")
        done = subprocess.run(
            [sys.executable, "-m", "bentoml", "build", "--output", "tag", "--version", "1"],
            cwd=source,
            env=environment(tmp_path / "home"),
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr
    bento = tmp_path / "home" / "bentos" / "surgery" / "1"
    files = {str(p.relative_to(bento)) for p in bento.rglob("*") if p.is_file()}
    assert {"src/models/colours/1/model.onnx", "src/models/colours/aliases.json"} <= files
    rooms = {f.split("/")[2] for f in files if f.startswith("src/surgery/")}
    assert rooms == {"__init__.py", "artifact"}
    assert not [file for file in files if "/." in file or "__pycache__" in file]
    required = (bento / "env" / "python" / "requirements.txt").read_text()
    assert "onnxruntime-gpu==" in required
    assert not [name for name in HEAVY if name in required]
    code = """
import os
from starlette.testclient import TestClient
from service.app import svc
with TestClient(svc.to_asgi()) as client:
    print(client.post("/predict", files={"image": open(os.environ["PICTURE"], "rb")}).text)
"""
    picture = tmp_path / "red.png"
    picture.write_bytes(RED)
    printed = run_python(code, bento / "src", tmp_path / "home2", PICTURE=str(picture))
    assert json.loads(printed.splitlines()[-1])["labels"][0]["label"] == "red"
