"""A graph in half precision, for GPUs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from surgery.artifact.errors import SurgeryError
from surgery.deliver.layers import Parts

ALWAYS_FLOAT = {"Resize": (1, 2)}
"""Inputs that the operator itself wants in float32: region and scales."""
LARGEST = float(np.finfo(np.float16).max)
HALF, FULL = "/fp16", "/fp32"
"""Put behind a tensor's name for its copy of the other type."""


def write_fp16(parts: Parts, path: Path) -> None:
    """Write a graph whose layers compute in float16.

    Images stay uint8, answers float32; the normalisation and what follows the last feature map of a
    classifier stay float32 throughout, as squares leave float16's range. (The converter of
    onnxruntime rounds every value between two float32 nodes to float16, and leaves nodes out of order.)

    Args:
        parts: The float32 graph.
        path: The file to write.

    Raises:
        SurgeryError: If the graph cannot be written so.
    """
    model = _Halving(parts).model
    try:
        onnx.checker.check_model(model, full_check=True)
    # onnx's errors have no common base but Exception.
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise SurgeryError(
            f"this graph cannot be written in float16: {reason}", "Serve it in fp32."
        ) from error
    path.write_bytes(model.SerializeToString())


class _Halving:
    """The rewriting of one graph; `model` is the result."""

    def __init__(self, parts: Parts) -> None:
        self.inside = parts.inside
        self.model = ModelProto()
        self.model.CopyFrom(parts.model)
        graph = self.model.graph
        known = (*graph.value_info, *graph.output, *graph.input)
        kinds = {each.name: each.type.tensor_type.elem_type for each in known}
        self.weights = {each.name: each for each in graph.initializer}
        kinds |= {name: each.data_type for name, each in self.weights.items()}
        self.floats = {name for name, kind in kinds.items() if kind == TensorProto.FLOAT}
        made = {name for node in graph.node if node.name in self.inside for name in node.output}
        self.halves = made & self.floats
        self.answers = {each.name for each in graph.output} & self.halves
        self.casts: set[str] = set()
        self.nodes: list[NodeProto] = []
        for node in list(graph.node):
            self._rewrite(node)
        del graph.node[:], graph.value_info[:]
        graph.node.extend(self.nodes)
        _drop_unused(self.model)

    def _rewrite(self, node: NodeProto) -> None:
        halved = node.name in self.inside
        kept = ALWAYS_FLOAT.get(node.op_type, ()) if halved else ()
        for i, name in enumerate(node.input):
            if name in self.floats and i not in kept:
                node.input[i] = self._as_half(name) if halved else self._as_float(name)
        if halved:
            self._halve_attributes(node)
            for i, name in enumerate(node.output):
                node.output[i] = name + HALF if name in self.answers else name
        self.nodes.append(node)
        for name in self.answers & {name.removesuffix(HALF) for name in node.output}:
            self._cast(name + HALF, name, TensorProto.FLOAT)

    def _as_half(self, name: str) -> str:
        if name in self.halves:
            return name + HALF if name in self.answers else name
        if name in self.weights:
            if name + HALF not in self.weights:
                values = numpy_helper.to_array(self.weights[name]).clip(-LARGEST, LARGEST)
                self.weights[name + HALF] = numpy_helper.from_array(values.astype(np.float16), name + HALF)
                self.model.graph.initializer.append(self.weights[name + HALF])
        else:
            self._cast(name, name + HALF, TensorProto.FLOAT16)
        return name + HALF

    def _as_float(self, name: str) -> str:
        if name not in self.halves or name in self.answers:
            return name
        self._cast(name, name + FULL, TensorProto.FLOAT)
        return name + FULL

    def _cast(self, name: str, other: str, kind: int) -> None:
        if other not in self.casts:
            self.casts.add(other)
            self.nodes.append(helper.make_node("Cast", [name], [other], to=kind, name=f"{other}/cast"))

    def _halve_attributes(self, node: NodeProto) -> None:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
            elif attribute.HasField("t") and attribute.t.data_type == TensorProto.FLOAT:
                values = numpy_helper.to_array(attribute.t).clip(-LARGEST, LARGEST)
                attribute.t.CopyFrom(numpy_helper.from_array(values.astype(np.float16), attribute.t.name))


def _drop_unused(model: ModelProto) -> None:
    """Leave out the weights that have been replaced."""
    used = {name for node in model.graph.node for name in node.input}
    kept = [each for each in model.graph.initializer if each.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
