"""Versions whose answer, and whose embedding, is the mean colour of an image; and images of such colours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from PIL import Image

from surgery.artifact.manifest import InputSpec, Manifest, OutputSpec
from surgery.artifact.novelty import Gaussian, write_novelty
from surgery.artifact.store import Store, StoredVersion
from surgery.deliver.statistics import hold_out


def write_graph(path: Path) -> None:
    """Write a graph whose logits and embedding are the mean red, green and blue."""
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "axes"], ["embedding"], keepdims=0),
        helper.make_node("Identity", ["embedding"], ["logits"]),
    ]
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 3]) for n in ("logits", "embedding")]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", "h", "w", 3])
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2])
    graph = helper.make_graph(nodes, "tiny", [image], outputs, [axes])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


def add_colours(
    name: str = "colours", statistics: bool = True, multilabel: bool = False, **fields: Any
) -> StoredVersion:
    """Add a version whose training images had colours around a grey; 119 were held out."""
    activation: Any = "sigmoid" if multilabel else "softmax"
    manifest = Manifest(
        name=name, task="classify", created="2025-01-01T00:00:00+00:00", surgery_version="0",
        input=InputSpec("crop", 8, 8), output=OutputSpec(activation, ("red", "green", "blue")), **fields,
    )  # fmt: skip
    mean = np.full(3, 3**-0.5, np.float32)
    gaussian = Gaussian(mean, np.zeros((0, 3), np.float32), np.zeros(0), 1e4)
    with Store().stage(name) as staging:
        write_graph(staging.path / "model.onnx")
        if statistics:
            held = np.random.default_rng(0).normal(100, 10, (119, 3)).astype(np.float32)
            write_novelty(staging.path, gaussian, {"fp32": hold_out(gaussian, held)})
        return staging.commit(manifest)


def draw_colours(folder: Path, count: int, red: float = 100) -> Path:
    """Draw images of colours around (red, 100, 100), no two of them copies, and return their folder."""
    rng = np.random.default_rng(int(red))
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(count):
        pixels = np.full((8, 8, 3), rng.normal((red, 100, 100), 10).clip(0, 255), np.uint8)
        pixels[0, 0] = k % 256
        Image.fromarray(pixels).save(folder / f"{k:03}.png")
    return folder
