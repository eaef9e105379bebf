"""A classifier of scikit-learn as ONNX, and joined to the network that gives its features."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from surgery.artifact.errors import StoreError, SurgeryError
from surgery.deliver.export import OPSET
from surgery.train.classifiers import LEAST_PROBABILITY, log_probabilities

Floats = NDArray[np.float32]

CLASSIFIER_FILE = "classifier.onnx"
"""The classifier alone, in its version: what the graph is joined from when it is exported again."""
ML_OPSET = 3
NETWORK = "network/"
"""Put before the names of the network's tensors, so that they are not the classifier's."""


@dataclass(frozen=True)
class Classifier:
    """What answers from features.

    Attributes:
        graph: As ONNX: `features` (n, d) float32 in, `logits` (n, c) out, its probabilities' logarithms.
        decide: What the graph must equal: maps features (n, d) to logits (n, c).
        facts: What the manifest tells of it.
    """

    graph: bytes
    decide: Callable[[Floats], Floats]
    facts: dict[str, Any]


def from_sklearn(estimator: Any, width: int, facts: dict[str, Any]) -> Classifier:
    """Return a fitted classifier of scikit-learn as ONNX.

    Args:
        estimator: With `predict_proba`, fitted on labels 0, 1, …
        width: Number of features.
        facts: What the manifest shall tell of it.

    Raises:
        SurgeryError: If skl2onnx cannot write it.
    """
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # skl2onnx reads attributes that will go
            written = to_onnx(
                estimator,
                initial_types=[("features", FloatTensorType([None, width]))],
                options={"zipmap": False},
                target_opset={"": OPSET, "ai.onnx.ml": ML_OPSET},
            )
    # skl2onnx's errors have no common base but Exception.
    except Exception as error:
        raise SurgeryError(f"{type(estimator).__name__} cannot be written as ONNX: {error}") from error
    graph = _answer_logits(written, len(estimator.classes_)).SerializeToString()

    def decide(features: Floats) -> Floats:
        return log_probabilities(estimator.predict_proba(features)).astype(np.float32)

    return Classifier(graph, decide, facts)


def open_classifier(folder: Path, facts: dict[str, Any]) -> Classifier:
    """Return the classifier of a stored version.

    Raises:
        StoreError: If it cannot be opened.
    """
    import onnxruntime

    path = folder / CLASSIFIER_FILE
    try:
        graph = path.read_bytes()
        session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise StoreError(f"{path}: {error}", "Restore the version from a copy.") from error

    def decide(features: Floats) -> Floats:
        logits: Floats = session.run(["logits"], {"features": features})[0]
        return logits

    return Classifier(graph, decide, facts)


def join_classifier(graph: Path, classifier: Classifier) -> None:
    """Put a classifier behind a network whose logits are features.

    The graph gives the classifier's `logits` then, and the features as `embedding`.

    Args:
        graph: The network's file, replaced.
        classifier: What answers.
    """
    network = onnx.compose.add_prefix(onnx.load(graph), NETWORK, rename_inputs=False, rename_functions=False)
    features = f"{NETWORK}logits"
    network = onnx.utils.Extractor(network).extract_model(["image"], [features])
    behind = onnx.load_model_from_string(classifier.graph)
    behind.ir_version = network.ir_version
    joined = onnx.compose.merge_models(network, behind, [(features, "features")], outputs=["logits"])
    joined.graph.node.append(helper.make_node("Identity", [features], ["embedding"]))
    shape = [_copy_dim(dim) for dim in network.graph.output[0].type.tensor_type.shape.dim]
    joined.graph.output.append(helper.make_tensor_value_info("embedding", TensorProto.FLOAT, shape))
    classes = joined.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    joined.graph.output[0].CopyFrom(
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", classes])
    )
    onnx.checker.check_model(joined, full_check=True)
    graph.write_bytes(joined.SerializeToString())


def _copy_dim(dim: Any) -> int | str:
    side: int | str = dim.dim_param or dim.dim_value
    return side


def _answer_logits(model: ModelProto, classes: int) -> ModelProto:
    """Put the logarithm behind the probabilities, and leave out all that does not lead there."""
    least = numpy_helper.from_array(np.float32(LEAST_PROBABILITY), "least_probability")
    model.graph.initializer.append(least)
    model.graph.node.extend(
        [
            helper.make_node("Max", ["probabilities", "least_probability"], ["likely"]),
            helper.make_node("Log", ["likely"], ["logits"]),
        ]
    )
    model.graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, [None, classes]))
    versions = {each.domain: each.version for each in model.opset_import}
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(domain, version) for domain, version in versions.items())
    return onnx.utils.Extractor(model).extract_model(["features"], ["logits"])
