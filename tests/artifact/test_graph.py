"""The optimised form of a graph answers as the graph does, and whatever happens to it, the graph is there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper

from surgery.artifact.graph import GraphCache, open_on_cpu

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 9, 7, 3), dtype=np.uint8)


def write_convolution(path: Path, seed: int = 0) -> str:
    """Write a graph with weights that onnxruntime puts in another order; return a name for it."""
    weights = np.random.default_rng(seed).normal(size=(32, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "weights"], ["maps"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["maps"], ["logits"]),
        helper.make_node("GlobalAveragePool", ["logits"], ["means"]),
        helper.make_node("Flatten", ["means"], ["embedding"]),
    ]
    graph = helper.make_graph(
        nodes,
        "convolution",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", "h", "w", 3])],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 32, "h", "w"]),
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 32]),
        ],
        [numpy_helper.from_array(weights, "weights")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return f"{seed:x}".ljust(64, "0")


def ask(graph: Any) -> np.ndarray:
    answer: np.ndarray = graph.run(["logits"], {"image": IMAGES})[0]
    return answer


@pytest.fixture
def cache(tmp_path: Path) -> GraphCache:
    return GraphCache(tmp_path / "cache" / "graphs", 100.0)


def folders(cache: GraphCache) -> list[Path]:
    return sorted(cache.root.iterdir()) if cache.root.exists() else []


def test_the_optimised_form_answers_bit_for_bit(tmp_path: Path, cache: GraphCache) -> None:
    path = tmp_path / "model.onnx"
    name = write_convolution(path)
    wanted = ask(open_on_cpu(path, 1))
    assert np.array_equal(ask(open_on_cpu(path, 1, cache, name)), wanted)
    (folder,) = folders(cache)
    nodes = {node.op_type: node.domain for node in onnx.load(folder / "model.onnx").graph.node}
    assert nodes.get("Conv") == "com.microsoft.nchwc", nodes
    path.unlink()  # from now on nothing else can have answered
    kept = cache.open(path, name, 1)
    assert kept is not None
    assert np.array_equal(ask(kept), wanted)


def test_its_weights_are_mapped_and_not_read(tmp_path: Path, cache: GraphCache) -> None:
    path = tmp_path / "model.onnx"
    graph = open_on_cpu(path, 1, cache, write_convolution(path))
    (folder,) = folders(cache)
    assert str(folder / "weights.bin") in {each.path for each in psutil.Process().memory_maps()}
    del graph


@pytest.mark.parametrize("file", ["model.onnx", "weights.bin", "sha256.json"])
@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
def test_what_is_damaged_is_made_again(tmp_path: Path, cache: GraphCache, file: str, harm: str) -> None:
    path = tmp_path / "model.onnx"
    name = write_convolution(path)
    wanted = ask(open_on_cpu(path, 1, cache, name))
    (folder,) = folders(cache)
    victim = folder / file
    data = victim.read_bytes()
    victim.unlink()
    if harm == "flip":
        victim.write_bytes(data[:50] + bytes([data[50] ^ 0x40]) + data[51:])
    elif harm == "cut":
        victim.write_bytes(data[: len(data) // 2])
    assert np.array_equal(ask(open_on_cpu(path, 1, cache, name)), wanted)
    path.unlink()
    assert np.array_equal(ask(cache.open(path, name, 1)), wanted)


def test_a_cache_that_cannot_be_written_costs_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    name = write_convolution(path)
    (tmp_path / "file").write_text("no folder")
    cache = GraphCache(tmp_path / "file" / "graphs", 100.0)
    assert cache.open(path, name, 1) is None
    assert np.array_equal(ask(open_on_cpu(path, 1, cache, name)), ask(open_on_cpu(path, 1)))


def test_what_is_no_graph_leaves_nothing(tmp_path: Path, cache: GraphCache) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"no graph")
    assert cache.open(path, "0" * 64, 1) is None
    assert folders(cache) == []


def test_the_bound_holds_and_the_oldest_go(tmp_path: Path) -> None:
    names = []
    for seed in range(3):
        names.append(write_convolution(tmp_path / f"{seed}.onnx", seed))
    cache = GraphCache(tmp_path / "graphs", 100.0)
    cache.open(tmp_path / "0.onnx", names[0], 1)
    (folder,) = folders(cache)
    one = sum(file.stat().st_size for file in folder.iterdir()) / 2**20
    cache = GraphCache(tmp_path / "graphs", 2.5 * one)
    cache.open(tmp_path / "1.onnx", names[1], 1)
    for age, name in ((100, names[1]), (50, names[0])):
        (kept,) = [each for each in folders(cache) if each.name.startswith(name[:32])]
        os.utime(kept, (kept.stat().st_atime, kept.stat().st_mtime - age))
    cache.open(tmp_path / "2.onnx", names[2], 1)
    found = {each.name[:32] for each in folders(cache)}
    assert found == {names[0][:32], names[2][:32]}


def test_what_is_not_the_caches_own_stays(tmp_path: Path) -> None:
    for name in ("photographs", ".making-new", ".making-old"):
        (tmp_path / "graphs" / name).mkdir(parents=True)
        (tmp_path / "graphs" / name / "file").write_bytes(bytes(2**20))
    (tmp_path / "graphs").chmod(0o700)
    os.utime(tmp_path / "graphs" / ".making-old", (0, 0))
    os.utime(tmp_path / "graphs" / "photographs", (0, 0))
    cache = GraphCache(tmp_path / "graphs", 0.1)
    name = write_convolution(tmp_path / "model.onnx")
    assert cache.open(tmp_path / "model.onnx", name, 1) is not None
    assert {path.name[:11] for path in folders(cache)} == {"photographs", ".making-new", name[:11]}


def test_what_is_larger_than_the_cache_is_not_kept(tmp_path: Path) -> None:
    cache = GraphCache(tmp_path / "graphs", 0.001)
    assert cache.open(tmp_path / "model.onnx", write_convolution(tmp_path / "model.onnx"), 1) is None
    assert folders(cache) == []


def test_a_folder_that_others_may_write_is_not_trusted(tmp_path: Path) -> None:
    cache = GraphCache(tmp_path / "graphs", 10.0)
    path = tmp_path / "model.onnx"
    name = write_convolution(path)
    assert cache.open(path, name, 1) is not None
    assert cache.root.stat().st_mode & 0o777 == 0o700
    cache.root.chmod(0o777)
    assert cache.open(path, name, 1) is None


def test_a_folder_that_may_not_be_entered_costs_nothing_else(
    tmp_path: Path, cache: GraphCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.onnx"
    name = write_convolution(path)
    cache.open(path, name, 1)

    def denied(*given: Any, **more: Any) -> Any:
        raise PermissionError(13, "denied")

    monkeypatch.setattr(os, "stat", denied)  # root may enter everything
    assert not cache.holds(name)
    assert cache.open(path, name, 1) is None


def test_dropping_forgets(tmp_path: Path, cache: GraphCache) -> None:
    path = tmp_path / "model.onnx"
    name = write_convolution(path)
    cache.open(path, name, 1)
    cache.drop(name)
    assert folders(cache) == []
    cache.drop(name)  # and once more is no error
