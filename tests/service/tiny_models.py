"""Tiny ONNX models whose answers are known, and images of one colour."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from surgery.artifact.manifest import InputSpec, Manifest, OutputSpec
from surgery.artifact.selftest import SELFTEST_FILE
from surgery.artifact.store import Store, StoredVersion

SCALE = 0.01


def classifier_graph(scale: float, explains: bool = False) -> onnx.ModelProto:
    """Logits are the mean of red, green and blue, times `scale`; the map is each pixel's part in them."""
    mapped = [
        helper.make_node("Mul", ["pixels", "scale"], ["parts"]),
        helper.make_node("Transpose", ["parts"], ["cam"], perm=[0, 3, 1, 2]),
    ]
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "axes"], ["embedding"], keepdims=0),
        helper.make_node("Mul", ["embedding", "scale"], ["logits"]),
    ]
    constants = {"axes": np.array([1, 2], np.int64), "scale": np.array(scale, np.float32)}
    return _model(nodes + mapped * explains, constants, ["n", 3], explains)


def segmenter_graph() -> onnx.ModelProto:
    """One logit per pixel: red - 127.5."""
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Slice", ["planes", "zero", "one", "one"], ["red"]),
        helper.make_node("Sub", ["red", "half"], ["logits"]),
        helper.make_node("ReduceMean", ["pixels", "axes"], ["embedding"], keepdims=0),
    ]
    constants = {
        "zero": np.array([0], np.int64),
        "one": np.array([1], np.int64),
        "half": np.array(127.5, np.float32),
        "axes": np.array([1, 2], np.int64),
    }
    return _model(nodes, constants, ["n", 1, "h", "w"])


def _model(
    nodes: list[Any], constants: dict[str, Any], shape: list[Any], explains: bool = False
) -> onnx.ModelProto:
    cam = [helper.make_tensor_value_info("cam", TensorProto.FLOAT, ["n", 3, "h", "w"])]
    # Slice takes its axes from its fourth input: axis 1, the channels.
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", "h", "w", 3])],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape),
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 3]),
            *cam * explains,
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def add_classifier(
    store: Store, name: str = "colours", scale: float = SCALE, explains: bool = True,
    asked: tuple[np.ndarray, np.ndarray] | None = None, prepare: Callable[[Path], object] | None = None,
    **fields: Any,
) -> StoredVersion:  # fmt: skip
    """Add a version that answers which of red, green and blue an image is.

    `asked` is its self-test, and `prepare` adds files to it.
    """
    manifest = Manifest(
        name=name,
        task="classify",
        created="2025-01-01T00:00:00+00:00",
        surgery_version="0",
        input=InputSpec("crop", 32, 24),
        output=OutputSpec("softmax", ("red", "green", "blue")),
        **fields,
    )
    with store.stage(name) as staging:
        onnx.save(classifier_graph(scale, explains), staging.path / "model.onnx")
        if asked:
            np.savez(staging.path / SELFTEST_FILE, image=asked[0], logits=asked[1])
        if prepare:
            prepare(staging.path)
        return staging.commit(manifest)


def add_segmenter(
    store: Store, name: str = "cars", prepare: Callable[[Path], object] | None = None
) -> StoredVersion:
    """Add a version that answers which pixels are red."""
    manifest = Manifest(
        name=name,
        task="segment",
        created="2025-01-01T00:00:00+00:00",
        surgery_version="0",
        input=InputSpec("native"),
        output=OutputSpec("sigmoid", ("rest", "car"), (0, 1), "rest"),
    )
    with store.stage(name) as staging:
        onnx.save(segmenter_graph(), staging.path / "model.onnx")
        if prepare:
            prepare(staging.path)
        return staging.commit(manifest)


def png(pixels: np.ndarray) -> bytes:
    """Return pixels (h, w, 3) as the bytes of a PNG."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def plain(colour: tuple[int, int, int], size: tuple[int, int] = (40, 30)) -> bytes:
    """Return a PNG of one colour, size (width, height)."""
    return png(np.full((size[1], size[0], 3), colour, np.uint8))


RED = plain((255, 0, 0))
