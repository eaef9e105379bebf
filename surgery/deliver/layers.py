"""What a graph is made of: which of its nodes may be computed with fewer bits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import ModelProto, NodeProto

from surgery.artifact.errors import StoreError

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators that are a layer where one of their inputs is a weight."""
THROUGH = ("Identity", "Slice", "Add", "Mul", "Div", "Resize", "Reshape", "Transpose", "Cast")
"""What may stand between the last layer of a mask's head and the logits."""
POWERS = ("Pow", "Clip")
"""What stands between a feature map and its mean in the `gem` pool; squares and cubes need float32."""


@dataclass(frozen=True)
class Parts:
    """A graph and what its nodes are to it."""

    model: ModelProto
    """With a name for every node and inferred shapes."""
    layers: tuple[str, ...]
    """Nodes with weights that may be computed with fewer bits, in the order they run."""
    inside: frozenset[str]
    """All nodes that may be, the layers and what lies between them.

    Outside are the normalisation of the image, and for labels whatever follows the last feature map: pooling
    to vectors of one length squares numbers, and costs nothing.
    """
    last: frozenset[str]
    """The layers whose outputs are the logits of a mask."""
    constants: frozenset[str]
    """Tensors that are the same for every image: weights and the like."""


def read_parts(path: Path, task: str) -> Parts:
    """Read a graph of the store and find its parts.

    Raises:
        StoreError: If it cannot be read or has no layer.
    """
    try:
        model = onnx.shape_inference.infer_shapes(onnx.load(path))
    # onnx's errors have no common base but Exception.
    except Exception as error:
        raise StoreError(f"{path}: no graph that can be read ({error})", "Export the model again.") from error
    _name_nodes(model)
    _merge_opsets(model)
    walk = _Walk(model)
    weighted = {node.name for node in model.graph.node if walk.is_layer(node)}
    behind = walk.reach_down(weighted)
    wanted = walk.reach_up(_maps(walk) if task == "classify" else ["logits"])
    inside = frozenset((weighted | behind) & wanted)
    layers = tuple(node.name for node in model.graph.node if node.name in weighted & inside)
    if not layers:
        raise StoreError(f"{path}: no layer with weights was found in this graph", "Export the model again.")
    last = frozenset() if task == "classify" else frozenset(_last(walk))
    return Parts(model, layers, inside, last, frozenset(walk.constants))


def spell_layer(parts: Parts, name: str) -> str:
    """Return what a layer is called in torch, as its weight's name tells."""
    node = next(node for node in parts.model.graph.node if node.name == name)
    weight: str = next(each for each in node.input[:2] if each in parts.constants)
    return weight.removeprefix("network/").removeprefix("model.").removesuffix(".weight")


def _name_nodes(model: ModelProto) -> None:
    """Give every node a name of its own; nodes are chosen by it."""
    seen: set[str] = set()
    for k, node in enumerate(model.graph.node):
        if not node.name or node.name in seen:
            node.name = f"{node.op_type}_{k}_{node.output[0]}"
        seen.add(node.name)


def _merge_opsets(model: ModelProto) -> None:
    """State each domain once; graphs joined of two state some twice, which the quantiser refuses."""
    versions: dict[str, int] = {}
    for each in model.opset_import:
        domain = "" if each.domain == "ai.onnx" else each.domain
        versions[domain] = max(each.version, versions.get(domain, 0))
    del model.opset_import[:]
    model.opset_import.extend(onnx.helper.make_opsetid(*each) for each in versions.items())


class _Walk:
    """A graph's edges, both ways."""

    def __init__(self, model: ModelProto) -> None:
        graph = model.graph
        self.nodes = {node.name: node for node in graph.node}
        self.makers: dict[str, NodeProto] = {name: node for node in graph.node for name in node.output}
        self.takers: dict[str, list[NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in node.input:
                self.takers[name].append(node)
        self.constants = {each.name for each in graph.initializer}
        self.constants |= {name for node in graph.node if node.op_type == "Constant" for name in node.output}
        known = (*graph.value_info, *graph.output)
        self.ranks = {each.name: len(each.type.tensor_type.shape.dim) for each in known}

    def is_layer(self, node: NodeProto) -> bool:
        return node.op_type in LAYERS and any(name in self.constants for name in node.input[:2])

    def reach_up(self, tensors: Iterable[str]) -> set[str]:
        """Return the nodes that tensors are made by, directly or not."""
        found: set[str] = set()
        waiting = list(tensors)
        while waiting:
            node = self.makers.get(waiting.pop())
            if node is not None and node.name not in found:
                found.add(node.name)
                waiting += node.input
        return found

    def reach_down(self, names: Iterable[str]) -> set[str]:
        """Return the nodes that are made from nodes' outputs, directly or not."""
        found: set[str] = set()
        waiting = [name for node in names for name in self.nodes[node].output]
        while waiting:
            for node in self.takers[waiting.pop()]:
                if node.name not in found:
                    found.add(node.name)
                    waiting += node.output
        return found


def _maps(walk: _Walk) -> list[str]:
    """Return the deepest feature maps: the tensors of four axes that the embedding is made from."""
    found: list[str] = []
    waiting, seen = ["embedding"], set()
    while waiting:
        name = waiting.pop()
        node = walk.makers.get(name)
        if node is None or name in seen:
            continue
        seen.add(name)
        if walk.ranks.get(name) == 4 and node.op_type not in POWERS:
            found.append(name)
        else:
            waiting += node.input
    return found


def _last(walk: _Walk) -> list[str]:
    """Return the layers behind which nothing but resizing and adding up follows."""
    found: list[str] = []
    waiting, seen = ["logits"], set()
    while waiting:
        node = walk.makers.get(waiting.pop())
        if node is None or node.name in seen:
            continue
        seen.add(node.name)
        if walk.is_layer(node):
            found.append(node.name)
        elif node.op_type in THROUGH:
            waiting += node.input
    return found
