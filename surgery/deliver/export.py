"""Export of a model as one ONNX file."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import ModelProto
from timm.layers import padding as timm_padding
from torch import Tensor, nn

from surgery.artifact.errors import ConfigError, SurgeryError
from surgery.artifact.manifest import InputSpec
from surgery.nets.assemble import Model

OPSET = 18
EXAMPLE_BATCH = 2
NOISY_LOGGERS = ("torch", "torch.onnx", "torch.export", "torch.fx", "onnxscript", "onnx_ir")


def export_onnx(model: Model, task: str, input: InputSpec, path: Path) -> None:
    """Write a model as a single ONNX file, everything inside it.

    The graph takes `image`, uint8 RGB (n, h, w, 3), and gives `logits`, (n, c) or (n, c, h, w), and
    `embedding` (n, d), float32; where the model can tell, also `cam` (n, c, h', w'), the class activation
    map (`Model.explain`). Normalisation, padding and cropping are inside. n is free; h and w are free for
    segment and those of the input's size rule for classify. The model is not changed.

    Args:
        model: In any mode and on any device; exported in inference mode.
        task: `classify` or `segment`.
        input: What the images are brought to before they enter.
        path: The file to write.

    Raises:
        ConfigError: `classify` without a fixed size.
        SurgeryError: The exporter cannot translate the network.
    """
    shape, free = _example(model, task, input)
    images = torch.zeros(shape, dtype=torch.uint8)
    net: nn.Module = copy.deepcopy(model).cpu().eval().requires_grad_(False)
    outputs = ["logits", "embedding"]
    if model.explains:
        net, outputs = _Explained(net), [*outputs, "cam"]
    try:
        with _quiet(), _even_padding(task == "segment"):
            program = torch.onnx.export(
                net,
                (images,),
                dynamo=True,
                opset_version=OPSET,
                input_names=["image"],
                output_names=outputs,
                dynamic_shapes=(free,),
                external_data=False,
                verbose=False,
            )
        if program is None:
            raise SurgeryError("the exporter returned nothing")
    except SurgeryError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SurgeryError(
            f"{model.backbone.name} with this head cannot be written as ONNX: {reason}",
            "choose another head or backbone",
        ) from error
    proto = program.model_proto
    _name_sides(proto, task)
    for node in proto.graph.node:
        del node.metadata_props[:]  # the exporter's own notes; they name folders of this machine
    onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString())


class _Explained(nn.Module):
    """A model that gives its class activation map too."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        answers: tuple[Tensor, Tensor, Tensor] = self.model.explain(images)
        return answers


def _example(model: Model, task: str, input: InputSpec) -> tuple[tuple[int, ...], dict[int, Any]]:
    """Shape of an example (n, h, w, 3), and which of its sides are free."""
    if task == "segment":
        side = 2 * model.stride
        # Neither equal to each other nor multiples of the stride: nothing is taken for a constant.
        return (EXAMPLE_BATCH, side + 5, side + model.stride + 3, 3), {0: "n", 1: "h", 2: "w"}
    if not (input.height and input.width):
        raise ConfigError("a classifier is exported for one size of input", "give --image-size")
    return (EXAMPLE_BATCH, input.height, input.width, 3), {0: "n"}


def _name_sides(proto: ModelProto, task: str) -> None:
    """Call the free sides of the outputs what those of the input are called."""
    sides = {"logits": {0: "n"}, "embedding": {0: "n"}, "cam": {0: "n"}}
    if task == "segment":
        sides["logits"] |= {2: "h", 3: "w"}  # cropped to the image's size inside
    for output in proto.graph.output:
        for axis, name in sides[output.name].items():
            output.type.tensor_type.shape.dim[axis].dim_param = name


@contextlib.contextmanager
def _even_padding(active: bool) -> Iterator[None]:
    """Write TensorFlow's `same` padding as constants.

    It depends on the side modulo the stride only, and segmentation pads images so that this is 0 at every
    stage; as a formula of a free side it takes the exporter minutes.
    """

    def same(x: int, kernel_size: int, stride: int, dilation: int) -> int:
        return max((kernel_size - 1) * dilation + 1 - stride, 0)

    original = timm_padding.get_same_padding
    if active:
        timm_padding.get_same_padding = same
    try:
        yield
    finally:
        timm_padding.get_same_padding = original


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks on its own internals from the console."""
    levels = {name: logging.getLogger(name).level for name in NOISY_LOGGERS}
    for name in NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
