"""Take the weights of a backbone out of files that were made for something else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from surgery.artifact.errors import WeightsError
from surgery.nets.backbone import Backbone, build_backbone

CAFFE_MEAN = (123.68, 116.779, 103.939)
"""Of R, G and B on the 0–255 scale, as Oxford's VGG networks subtract them."""
PROOF_PIXELS = 64
PROOF_TOLERANCE = 1e-3

UNFOLDED = "export it again with torch.onnx.export(…, optimize=False), or give a state dict"

PARTS = ("weight", "bias", "running_mean", "running_var")
"""Of a layer, in the order of the inputs of ONNX's Conv and BatchNormalization."""

Kernel = npt.NDArray[np.float32]
Layers = Sequence[tuple[str, nn.Module]]


def lift_in_order(state: Mapping[str, Tensor], backbone: str) -> dict[str, Tensor]:
    """Rename a state dict whose tensors stand in the order of timm's.

    Raises:
        WeightsError: Another number of tensors, or a name's last part or a shape that differs.
    """
    import timm

    with torch.device("meta"):
        wanted = timm.create_model(backbone).state_dict()
    pairs = list(zip(state.items(), wanted.items(), strict=False))
    bad = [
        f"{theirs} {tuple(found.shape)} is not {ours} {tuple(value.shape)}"
        for (theirs, found), (ours, value) in pairs
        if found.shape != value.shape or theirs.rsplit(".")[-1] != ours.rsplit(".")[-1]
    ]
    if len(state) != len(wanted) or bad:
        raise WeightsError(
            f"these are not the tensors of {backbone} in timm's order: {len(state)} for "
            f"{len(wanted)}" + (f"; {bad[0]}" if bad else "")
        )
    return {ours: found for (_, found), (ours, _) in pairs}


def lift_vgg16_caffe(
    model: onnx.ModelProto, mean: tuple[float, ...], std: tuple[float, ...]
) -> dict[str, Tensor]:
    """Lift Oxford's VGG16, which expects Caffe's input, for an input normalised as timm does.

    Args:
        model: Any network whose first convolutions are VGG16's, fed with BGR on the 0–255 scale minus
            CAFFE_MEAN.
        mean, std: Of R, G, B on the 0–1 scale, as the lifted weights will expect them.

    Returns:
        timm's vgg16 without its classifier.
    """
    state = lift_onnx(model, "vgg16", prove=False)
    first = "features.0"
    state[f"{first}.weight"], state[f"{first}.bias"] = _fold_caffe(
        state[f"{first}.weight"].numpy(), state[f"{first}.bias"].numpy(), mean, std
    )
    return state


def _fold_caffe(
    weight: Kernel, bias: Kernel, mean: tuple[float, ...], std: tuple[float, ...]
) -> tuple[Tensor, Tensor]:
    """Fold `255 (x std + mean) - CAFFE_MEAN` of a normalised RGB x into a BGR convolution.

    At the padded border the fold is not exact: padding with 0 means the mean of ImageNet's
    normalisation there, and Caffe's mean in the original, less than a grey level apart.
    """
    rgb = weight[:, ::-1].astype(np.float64)  # (out, 3, kh, kw), BGR -> RGB
    scale = np.array([255 * s for s in std])
    shift = np.array([255 * m - c for m, c in zip(mean, CAFFE_MEAN, strict=True)])
    folded = rgb * scale[:, None, None]
    moved = rgb * shift[:, None, None]
    # fsum is exact, so every machine lifts the same bits.
    offset = [math.fsum([float(b), *m.ravel().tolist()]) for b, m in zip(bias, moved, strict=True)]
    return (
        torch.from_numpy(np.ascontiguousarray(folded, dtype=np.float32)),
        torch.tensor(offset, dtype=torch.float64).float(),
    )


def lift_onnx(model: onnx.ModelProto, backbone: str, prove: bool = True) -> dict[str, Tensor]:
    """Lift a backbone out of any ONNX network that begins with it.

    The convolutions of the graph, in its order, must have the shapes of the backbone's; the same for batch
    norm. More may follow: they are the old head. The input is not looked at: it must be normalised as timm
    does for the backbone.

    Args:
        model: With its weights.
        backbone: timm's name.
        prove: Run both up to the backbone's last layer and compare. Equal shapes alone do not show that
            two like layers stand in the same order.

    Returns:
        The backbone under timm's names, float32.

    Raises:
        WeightsError: Another network, batch norm folded into its convolutions, quantised, or with layers that
            are neither convolution nor batch norm.
    """
    network = build_backbone(backbone, None)
    constants = _constants(model)
    convs = [node for node in model.graph.node if node.op_type == "Conv"]
    norms = [node for node in model.graph.node if node.op_type == "BatchNormalization"]
    own_convs = [(n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d)]
    own_norms = [(n, m) for n, m in network.named_modules() if isinstance(m, _BatchNorm)]
    _check_kinds(network, own_convs, own_norms, convs, norms, model)
    found = _match("convolution", own_convs, convs, constants)
    found |= _match("batch norm", own_norms, norms, constants)
    network.load_state_dict(found, strict=False)
    if prove:
        _prove(model, network, convs, own_convs)
    return {key: value.clone() for key, value in network.timm_state().items()}


def read_onnx(path: Path) -> onnx.ModelProto:
    """Read an ONNX file with its weights.

    Raises:
        WeightsError: No such file, or not ONNX.
    """
    try:
        return onnx.load(path)
    except FileNotFoundError as error:
        raise WeightsError(f"there is no file {path}, or weights beside it are missing: {error}") from error
    except Exception as error:  # protobuf and onnx raise several types on foreign bytes
        raise WeightsError(f"{path} is not an ONNX file: {error}") from error


def _constants(model: onnx.ModelProto) -> dict[str, Kernel]:
    """Every constant of the graph by name, through `Identity`, which exporters put on shared weights."""
    graph = model.graph
    found = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            found[node.output[0]] = node.attribute[0].t
        if node.op_type == "Identity" and node.input[0] in found:
            found[node.output[0]] = found[node.input[0]]
    used = {
        name for node in graph.node if node.op_type in ("Conv", "BatchNormalization") for name in node.input
    }
    return {name: numpy_helper.to_array(found[name]) for name in used if name in found}


def _check_kinds(
    network: Backbone,
    own_convs: Layers,
    own_norms: Layers,
    convs: list[onnx.NodeProto],
    norms: list[onnx.NodeProto],
    model: onnx.ModelProto,
) -> None:
    """Refuse what cannot be lifted, before a shape is looked at."""
    name = network.name
    inside = sum(len(list(module.parameters())) for _, module in (*own_convs, *own_norms))
    other = len(list(network.parameters())) - inside
    if other:
        raise WeightsError(
            f"{name} cannot be lifted from ONNX: it has {other} tensors outside convolutions and batch norm",
            "give its weights as .safetensors or .pth",
        )
    quantised = {"QLinearConv", "ConvInteger", "DequantizeLinear"}
    if any(node.op_type in quantised for node in model.graph.node):
        raise WeightsError("the ONNX network is quantised", "lift from the float network instead")
    if len(convs) < len(own_convs):
        raise WeightsError(
            f"the ONNX network has {len(convs)} convolutions and {name} has {len(own_convs)}",
            "name the backbone that the network was made from",
        )
    if len(norms) < len(own_norms):
        raise WeightsError(
            f"the ONNX network has {len(norms)} batch norms and {name} has {len(own_norms)}: "
            "they were folded into the convolutions at export, which cannot be undone",
            UNFOLDED,
        )


def _match(
    kind: str, own: Layers, nodes: list[onnx.NodeProto], constants: dict[str, Kernel]
) -> dict[str, Tensor]:
    """Give the constants of the graph's layers of one kind, in order, the backbone's names."""
    found = {}
    for k, ((name, module), node) in enumerate(zip(own, nodes, strict=False)):
        where, given = f"{kind} {k + 1}", node.input[1:]
        parts = [part for part in PARTS if getattr(module, part, None) is not None]
        # Unoptimised exports give a bias of computed zeros to every convolution; the proof sees others.
        extra = [name for name in given[len(parts) :] if name in constants and constants[name].any()]
        if len(given) < len(parts) or extra:
            raise WeightsError(
                f"{where} has {len(given)} weights in the ONNX network and {len(parts)} in {name}; "
                "a batch norm folded into it would look like this",
                UNFOLDED,
            )
        for part, constant in zip(parts, given, strict=False):
            if constant not in constants:
                raise WeightsError(f"the {part} of {where} ({constant}) is no constant of the ONNX network")
            value, wanted = constants[constant], tuple(getattr(module, part).shape)
            if value.shape != wanted:
                raise WeightsError(
                    f"the {part} of {where} is {value.shape} in the ONNX network and {wanted} in {name}",
                    "name the backbone that the network was made from",
                )
            found[f"{name}.{part}"] = torch.from_numpy(value.astype(np.float32))
    return found


@torch.no_grad()
def _prove(
    model: onnx.ModelProto,
    network: Backbone,
    convs: list[onnx.NodeProto],
    own_convs: Layers,
) -> None:
    """Compare the output of the last convolution on noise, in onnxruntime and in torch."""
    import onnxruntime

    graph_input, last = model.graph.input[0], convs[len(own_convs) - 1].output[0]
    dims = [dim.dim_value for dim in graph_input.type.tensor_type.shape.dim]
    is_image = len(dims) == 4 and dims[1] == 3
    if not is_image or graph_input.type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
        raise WeightsError(
            f"the input of the ONNX network is {dims}, not float images (n, 3, h, w)",
            "give the network without its preprocessing, or a state dict",
        )
    shape = (dims[0] or 1, 3, dims[2] or PROOF_PIXELS, dims[3] or PROOF_PIXELS)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    if last not in {output.name for output in probe.graph.output}:
        probe.graph.output.append(onnx.ValueInfoProto(name=last))
    session = onnxruntime.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    theirs = session.run([last], {graph_input.name: images.numpy()})[0]
    caught: list[Tensor] = []
    hook = own_convs[-1][1].register_forward_hook(lambda _m, _i, output: caught.append(output.clone()))
    try:
        network.run(images)
    finally:
        hook.remove()
    ours = caught[0].numpy()
    if theirs.shape != ours.shape or not np.allclose(
        theirs,
        ours,
        rtol=PROOF_TOLERANCE,
        atol=PROOF_TOLERANCE * float(np.abs(ours).max()),
    ):
        raise WeightsError(
            f"the ONNX network has layers of the shapes of {network.name}, but computes something else",
            "name the backbone that the network was made from, or give a state dict",
        )
