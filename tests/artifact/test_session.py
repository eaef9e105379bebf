"""A graph is opened, checked and asked; the answer is the same whatever the device is called."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_graph import Add, make_manifest, write_graph

from surgery.artifact import graph as module
from surgery.artifact.errors import ConfigError, StoreError, SurgeryError
from surgery.artifact.manifest import InputSpec
from surgery.artifact.session import answer_image, open_session, open_version

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), dtype=np.uint8)


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    write_graph(tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def test_runs_the_graph(graph: Path) -> None:
    session = open_session(graph, "cpu", threads=1)
    logits, embedding = session.run(IMAGES)
    assert session.device == "cpu"
    assert logits.dtype == embedding.dtype == np.float32
    np.testing.assert_array_equal(logits, IMAGES.transpose(0, 3, 1, 2))
    np.testing.assert_allclose(embedding, IMAGES.mean(axis=(1, 2)), rtol=1e-5)


def test_masks_are_answered_in_the_images_own_size(add: Add) -> None:
    stored = add()
    session = open_session(stored.graph(), "cpu")
    answer = answer_image(session, stored.manifest, IMAGES[0])
    assert answer.labels is None
    assert answer.mask is not None
    np.testing.assert_array_equal(answer.mask, IMAGES[0].argmax(axis=2))
    assert set(answer.milliseconds) == {"prepare", "network", "answer"}
    small = replace(stored.manifest, input=InputSpec("native", max_pixels=12))
    answer = answer_image(session, small, IMAGES[0])
    assert answer.logits.shape == (3, 2, 4)
    assert answer.mask is not None
    assert answer.mask.shape == (5, 7)


def test_labels_are_answered(add: Add) -> None:
    stored = add("ants", "classify")
    image = np.full((4, 4, 3), (10, 30, 20), np.uint8)
    answer = answer_image(open_session(stored.graph(), "cpu"), stored.manifest, image)
    assert answer.mask is None
    assert answer.labels is not None
    assert [each["label"] for each in answer.labels] == ["car", "sky", "road"]
    assert answer.embedding.tolist() == [10, 30, 20]


def test_threads_share_a_session(graph: Path) -> None:
    session = open_session(graph, "cpu")
    wanted = session.run(IMAGES)[0]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: session.run(IMAGES)[0], range(40)))
    assert all(np.array_equal(answer, wanted) for answer in answers)


def test_auto_is_the_cpu_without_a_driver_and_prints_nothing(graph: Path) -> None:
    code = (
        "import sys; from surgery.artifact.session import open_session;"
        "s = open_session(sys.argv[1], 'auto'); assert s.device in ('cpu', 'cuda')"
    )
    run = subprocess.run([sys.executable, "-c", code, str(graph)], capture_output=True, text=True, check=True)
    assert run.stdout == run.stderr == ""


def test_cuda_that_is_not_there(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "why_no_cuda", lambda: "no NVIDIA driver is installed")
    assert open_session(graph, "auto").device == "cpu"
    with pytest.raises(ConfigError, match="no NVIDIA driver"):
        open_session(graph, "cuda")


@pytest.mark.no_gpu
def test_cuda_libraries_that_are_not_there(
    graph: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    # The driver says yes, and the runtime then cannot: its own way back to the CPU is silent.
    monkeypatch.setattr(module, "why_no_cuda", lambda: "")
    assert open_session(graph, "auto").device == "cpu"
    with pytest.raises(ConfigError, match="onnxruntime"):
        open_session(graph, "cuda")
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


@pytest.mark.gpu
def test_cuda_answers_as_the_cpu_does(graph: Path) -> None:
    session = open_session(graph, "cuda")
    assert session.device == "cuda"
    np.testing.assert_array_equal(session.run(IMAGES)[0], IMAGES.transpose(0, 3, 1, 2))


def test_unknown_device_is_refused(graph: Path) -> None:
    with pytest.raises(ConfigError, match="tpu"):
        open_session(graph, "tpu")


@pytest.mark.parametrize("data", [b"", b"no graph", None])
def test_what_is_no_graph_is_refused(tmp_path: Path, data: bytes | None) -> None:
    path = tmp_path / "model.onnx"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(StoreError, match=r"model\.onnx"):
        open_session(path, "cpu")


def test_half_a_graph_is_refused(graph: Path) -> None:
    os.truncate(graph, graph.stat().st_size // 2)
    with pytest.raises(StoreError, match="not a graph"):
        open_session(graph, "cpu")


def test_graph_of_another_program_is_refused(tmp_path: Path) -> None:
    write_graph(tmp_path / "model.onnx", outputs=("logits",))
    with pytest.raises(StoreError, match="embedding"):
        open_session(tmp_path / "model.onnx", "cpu")


def test_graph_that_does_not_fit_the_manifest_is_refused(add: Add) -> None:
    stored = add("ants", "classify")
    with pytest.raises(StoreError, match="manifest wants"):
        answer_image(open_session(stored.graph(), "cpu"), make_manifest(), IMAGES[0])


def test_wrong_input_is_an_error_of_ours(graph: Path) -> None:
    with pytest.raises(SurgeryError, match="cannot run on float32"):
        open_session(graph, "cpu").run(IMAGES.astype(np.float32))


def imported_by(module_name: str) -> set[str]:
    code = f"import sys, {module_name}; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in run.stdout.split()}


def test_the_room_stays_light() -> None:
    for name in ("session", "store", "answer"):
        heavy = {"torch", "timm", "onnxruntime", "albumentations"}
        assert not heavy & imported_by(f"surgery.artifact.{name}")
    for name in ("errors", "names", "manifest", "store"):
        assert not {"numpy", "cv2", "PIL"} & imported_by(f"surgery.artifact.{name}")


def test_a_version_runs_the_graph_that_it_serves(add: Add, tmp_path: Path) -> None:
    stored = add()
    write_graph(stored.path / "model.int8.onnx")
    serve = {"cpu": "model.int8.onnx", "cuda": "model.onnx"}
    both = replace(stored, manifest=replace(stored.manifest, serve=serve))
    assert open_version(stored, "cpu").path.name == "model.onnx"
    assert open_version(both, "cpu").path.name == "model.int8.onnx"
    session = open_version(both, "auto")
    assert session.path.name == serve[session.device]
    with pytest.raises(ConfigError, match="tpu"):
        open_version(both, "tpu")


def test_a_graph_without_a_map_explains_nothing(add: Add) -> None:
    stored = add("ants", "classify")
    session = open_session(stored.graph(), "cpu")
    assert not session.explains
    assert answer_image(session, stored.manifest, IMAGES[0], explain=True).cam is None
    with pytest.raises(StoreError, match="no output 'cam'"):
        session.run_explained(IMAGES)
