"""Static quantisation of a graph: ranges of its tensors, and chosen layers in 8-bit integers."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto

from surgery.deliver.layers import Parts

LAYERS = ("Conv", "Gemm", "MatMul")
"""Layers that onnxruntime computes in integers; transposed convolutions it does not."""
BETWEEN = (
    "Add",
    "AveragePool",
    "Clip",
    "Concat",
    "GlobalAveragePool",
    "LeakyRelu",
    "MaxPool",
    "Mul",
    "Relu",
    "Sigmoid",
)
"""What it computes in integers too where all that comes in is: no way back to float between two layers."""

Ranges = Any
"""onnxruntime's TensorsData: lowest and highest value of each tensor."""


def find_ranges(parts: Parts, inputs: Iterator[np.ndarray]) -> dict[str, Ranges]:
    """Return the ranges of all tensors, by the extremes over the images and by the means of their extremes.

    One image is in memory at a time, and of it two numbers per tensor are kept.

    Args:
        parts: The float32 graph.
        inputs: uint8 RGB, shape (1, h, w, 3) each; taken one by one.
    """
    from onnxruntime.quantization.calibrate import MinMaxCalibrater

    with tempfile.TemporaryDirectory(prefix="surgery-ranges-") as folder:
        path = Path(folder) / "fp32.onnx"
        onnx.save(parts.model, path)
        calibrater = MinMaxCalibrater(path, [*LAYERS, *BETWEEN], str(Path(folder) / "ranges.onnx"))
        calibrater.augment_graph()
        calibrater.create_inference_session()
        calibrater.clear_collected_data = lambda: None  # the same numbers are merged twice
        calibrater.collect_data(_Reader(inputs))
        found = {"extremes": calibrater.compute_data()}
        calibrater.moving_average, calibrater.calibrate_tensors_range = True, None
        found["means"] = calibrater.compute_data()
    return found


@dataclass(frozen=True)
class _Reader:
    """What onnxruntime asks for the next input; None ends it."""

    inputs: Iterator[np.ndarray]

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self.inputs, None)
        return None if image is None else {"image": image}


def quantise(parts: Parts, ranges: Ranges, layers: Collection[str]) -> ModelProto:
    """Return the graph with the given layers, and what lies between them alone, in integers."""
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    model = ModelProto()
    model.CopyFrom(parts.model)
    quantizer = QDQQuantizer(
        model,
        per_channel=True,
        reduce_range=False,  # sessions ask for exact sums instead (artifact/graph.py)
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=ranges,
        nodes_to_quantize=[*layers, *_between(parts, layers)],
        nodes_to_exclude=[],
        op_types_to_quantize=[*LAYERS, *BETWEEN],
        extra_options={},
    )
    quantizer.quantize_model()
    quantised: ModelProto = quantizer.model.model
    return quantised


def _between(parts: Parts, layers: Collection[str]) -> list[str]:
    """Return the nodes without weights whose inputs all come from what is quantised."""
    made: set[str] = set()
    found = []
    for node in parts.model.graph.node:  # in the order they run
        if node.name in layers:
            made.update(node.output)
        elif node.op_type in BETWEEN and node.name in parts.inside:
            inputs = [name for name in node.input if name and name not in parts.constants]
            if inputs and made.issuperset(inputs):
                found.append(node.name)
                made.update(node.output)
    return found
