"""Graphs written by hand, whose layers bear few bits or do not by design, and data that they answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from surgery.artifact.manifest import InputSpec, Manifest, OutputSpec
from surgery.artifact.store import Store, StoredVersion
from surgery.data.readers import read_table
from surgery.data.table import Table
from surgery.data.targets import TargetSpec, resolve_target

SIDE = 8


class Writer:
    """Nodes and weights of a graph that is being written."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def weight(self, name: str, values: Any) -> str:
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=f"node_{output}", **attributes))
        return output

    def conv(self, x: str, name: str, kernel: Any, bias: Any, relu: bool = True) -> str:
        """A 1×1 convolution; kernel (outputs, inputs)."""
        values = np.asarray(kernel, np.float32)[:, :, None, None]
        weights = [self.weight(f"{name}.weight", values), self.weight(f"{name}.bias", np.float32(bias))]
        x = self.node("Conv", [x, *weights], name)
        return self.node("Relu", [x], f"{name}_relu") if relu else x

    def save(self, path: Path, side: Any, outputs: dict[str, list[Any]]) -> None:
        infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in outputs.items()]
        image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", *side, 3])
        graph = helper.make_graph(self.nodes, "tiny", [image], infos, self.weights)
        opset = helper.make_opsetid("", 18)
        onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=10), path)


def start(writer: Writer) -> str:
    """Bring the image to (n, 3, h, w), 0–1."""
    x = writer.node("Transpose", ["image"], "turned", perm=[0, 3, 1, 2])
    x = writer.node("Cast", [x], "cast", to=TensorProto.FLOAT)
    return writer.node("Mul", [x, writer.weight("scale", np.float32(1 / 255))], "scaled")


def write_classifier(path: Path, outlier: float = 0.0, loud: float = 1.0) -> None:
    """Red against blue: logits are 10 times their means' difference, squared in between.

    Args:
        path: The file.
        outlier: Constant fourth channel of `conv2`, which `conv3` does not read. If it is large, a range that
            holds it leaves no step for the others.
        loud: What `conv4` multiplies by, and the linear layer divides by twice.
    """
    writer = Writer()
    eye = np.eye(4, 3)
    x = writer.conv(start(writer), "conv1", eye, [0, 0, 0, 0])
    x = writer.conv(x, "conv2", np.eye(4), [0, 0, 0, outlier])
    x = writer.conv(x, "conv3", np.eye(4) * [1, 1, 1, 0], [0, 0, 0, 0])
    x = writer.conv(x, "conv4", np.eye(4) * loud, [0, 0, 0, 0])
    axes = writer.weight("axes", np.array([2, 3]))
    mean = writer.node("ReduceMean", [x, axes], "embedding", keepdims=0)
    square = writer.node("Mul", [mean, mean], "square")
    kernel = np.array([[-10, 0, 10, 0], [10, 0, -10, 0]], np.float32) / loud**2  # blue, red
    writer.node("Gemm", [square, writer.weight("linear.weight", kernel)], "logits", transB=1)
    writer.node("Conv", [x, writer.weight("cam.weight", kernel[:, :, None, None])], "cam")
    shapes = {"logits": ["n", 2], "embedding": ["n", 4], "cam": ["n", 2, SIDE, SIDE]}
    writer.save(path, (SIDE, SIDE), shapes)


def write_segmenter(path: Path) -> None:
    """Red pixels are the class, by twenty times how much more red they are than blue."""
    writer = Writer()
    x = writer.conv(start(writer), "conv1", np.eye(4, 3), [0, 0, 0, 0])
    x = writer.conv(x, "conv2", np.eye(4), [0, 0, 0, 0])
    writer.node("ReduceMean", [x, writer.weight("axes", np.array([2, 3]))], "embedding", keepdims=0)
    x = writer.conv(x, "output", [[20, 0, -20, 0]], [0], relu=False)
    writer.node("Identity", [x], "logits")
    writer.save(path, ("h", "w"), {"logits": ["n", 1, "h", "w"], "embedding": ["n", 4]})


def draw_data(folder: Path, task: str) -> tuple[Table, TargetSpec]:
    """Reddish and bluish images, 24 to train on and 8 for val; for masks with both halves in each."""
    rng = np.random.default_rng(0)
    for k in range(32):
        split = "train" if k < 24 else "val"
        name = ("blue", "red")[k % 2]
        colours = {"blue": (90, 100, 160), "red": (160, 100, 90)}
        pixels = np.empty((SIDE, SIDE, 3), int)
        pixels[:] = colours[name]
        mask = np.full((SIDE, SIDE), k % 2, np.uint8)
        if task == "segment":
            pixels[:, SIDE // 2 :] = colours["red"]
            mask[:, SIDE // 2 :] = 1
        pixels += rng.integers(-20, 21, pixels.shape)
        place = folder / split / ("images" if task == "segment" else name)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(place / f"{k}.png")
        if task == "segment":
            (folder / split / "masks").mkdir(exist_ok=True)
            Image.fromarray(mask).save(folder / split / "masks" / f"{k}.png")
    if task == "segment":
        (folder / "classes.txt").write_text("road\ncar\n")
    table = read_table(folder)
    return table, resolve_target(table, ("car",) if task == "segment" else (), ())


def describe(table: Table, output: OutputSpec, name: str = "tiny") -> Manifest:
    spec = InputSpec("native") if table.task == "segment" else InputSpec("resize", SIDE, SIDE)
    return Manifest(
        name=name,
        task=table.task,  # type: ignore[arg-type]
        created="2025-01-31T12:00:00+00:00",
        surgery_version="0.1.0",
        input=spec,
        output=output,
        data={"path": str(table.root), "fingerprint": table.fingerprint(), "val_share": 0.2},
        parity={"images": 8, "passed": True},
    )


def store_tiny(folder: Path, task: str, **graph: float) -> tuple[Store, StoredVersion, Table, TargetSpec]:
    """A store with one version of a graph written by hand, and its data."""
    table, targets = draw_data(folder / "data", task)
    store = Store(folder / "models")
    with store.stage("tiny") as staging:
        if task == "segment":
            write_segmenter(staging.path / "model.onnx")
        else:
            write_classifier(staging.path / "model.onnx", **graph)
        stored = staging.commit(describe(table, targets.output))
    return store, stored, table, targets
