"""A tiny graph and its manifest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from surgery.artifact.manifest import InputSpec, Manifest, OutputSpec
from surgery.artifact.store import StoredVersion

Add = Callable[..., StoredVersion]


def write_graph(path: Path, task: str = "segment", outputs: tuple[str, ...] = ()) -> None:
    """Write a graph whose three logits are the red, green and blue of the image itself."""
    import onnx  # a second in every subprocess that only wants a manifest
    from onnx import TensorProto, helper

    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2])
    # onnxruntime would print a warning about an initializer that nothing uses.
    spare = helper.make_tensor("spare", TensorProto.FLOAT, [1], [0])
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "axes"], ["embedding"], keepdims=0),
    ]
    shape: list[str | int]
    if task == "segment":
        nodes.append(helper.make_node("Transpose", ["pixels"], ["logits"], perm=[0, 3, 1, 2]))
        shape = ["n", 3, "h", "w"]
    else:
        nodes.append(helper.make_node("Identity", ["embedding"], ["logits"]))
        shape = ["n", 3]
    answers = {"logits": shape, "embedding": ["n", 3]}
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", "h", "w", 3])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, answers[name])
            for name in outputs or tuple(answers)
        ],
        [axes, spare],
    )
    opset = helper.make_opsetid("", 18)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=10), path)


def make_manifest(name: str = "cars", task: str = "segment") -> Manifest:
    values = (0, 1, 2) if task == "segment" else ()
    return Manifest(
        name=name,
        task=task,  # type: ignore[arg-type]
        created="2025-01-31T12:00:00+00:00",
        surgery_version="0.1.0",
        input=InputSpec("native"),
        output=OutputSpec("softmax", ("road", "car", "sky"), values),
        scores={"iou": 0.75},
    )
