"""Lifting weights out of foreign files: the numbers are the same, and what cannot be lifted is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from surgery.artifact.errors import WeightsError
from surgery.nets.lift import CAFFE_MEAN, _fold_caffe, lift_in_order, lift_onnx, read_onnx
from surgery.nets.weight_file import digest

TINY = "test_resnet"


def tiny_network() -> nn.Module:
    """A small network whose batch norms do something."""
    torch.manual_seed(0)
    network = timm.create_model(TINY).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return network


def exported(network: nn.Module, path: Path, **options: bool) -> onnx.ModelProto:
    images = torch.randn(1, 3, 64, 64)
    torch.onnx.export(network, (images,), path, external_data=False, verbose=False, dynamo=True, **options)
    return read_onnx(path)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return tiny_network()


@pytest.fixture(scope="module")
def unfolded(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    return exported(network, tmp_path_factory.mktemp("onnx") / "net.onnx", optimize=False)


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def test_fold_turns_caffe_input_into_normalised_input() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(4, 3, 3, 3, generator=generator), torch.randn(4, generator=generator)
    images = torch.randint(0, 256, (2, 3, 9, 9), generator=generator).float()  # RGB, 0–255
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    caffe = (images - torch.tensor(CAFFE_MEAN).view(1, 3, 1, 1)).flip(1)
    normalised = (images / 255 - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)
    expected = F.conv2d(caffe.double(), weight.double(), bias.double())
    found = F.conv2d(
        normalised.double(), *(t.double() for t in _fold_caffe(weight.numpy(), bias.numpy(), mean, std))
    )
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-3)


def test_onnx_gives_back_the_weights_it_was_made_from(network: nn.Module, unfolded: onnx.ModelProto) -> None:
    lifted = lift_onnx(unfolded, TINY)
    original = network.state_dict()
    assert set(original) - set(lifted) == {"fc.weight", "fc.bias"}
    values = [key for key in lifted if not key.endswith("num_batches_tracked")]
    assert all(torch.equal(lifted[key], original[key]) for key in values)


def test_folded_batch_norm_is_refused(network: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="folded into the convolutions"):
        lift_onnx(exported(network, tmp_path / "net.onnx", optimize=True), TINY)


def test_same_shapes_but_another_computation_is_refused(unfolded: onnx.ModelProto) -> None:
    model = copied(unfolded)
    relu = next(node for node in model.graph.node if node.op_type == "Relu")
    relu.op_type = "Neg"
    with pytest.raises(WeightsError, match="computes something else"):
        lift_onnx(model, TINY)


def test_quantised_network_is_refused(unfolded: onnx.ModelProto) -> None:
    model = copied(unfolded)
    model.graph.node.append(onnx.helper.make_node("DequantizeLinear", ["a", "b"], ["c"]))
    with pytest.raises(WeightsError, match="quantised"):
        lift_onnx(model, TINY)


def test_network_that_is_not_made_of_convolutions_is_refused(unfolded: onnx.ModelProto) -> None:
    with pytest.raises(WeightsError, match="outside convolutions and batch norm"):
        lift_onnx(unfolded, "test_convnext")


def test_network_with_fewer_layers_is_refused(unfolded: onnx.ModelProto) -> None:
    with pytest.raises(WeightsError, match="has 15 convolutions and resnet18 has 20"):
        lift_onnx(unfolded, "resnet18")


def test_layer_of_another_shape_is_refused(unfolded: onnx.ModelProto) -> None:
    model = copied(unfolded)
    name = next(node for node in model.graph.node if node.op_type == "Conv").input[1]
    kernel = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    kernel.dims[:2] = reversed(kernel.dims[:2])
    with pytest.raises(WeightsError, match="the weight of convolution 1 is"):
        lift_onnx(model, TINY)


def test_file_that_is_not_onnx_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"\xff" * 64)
    with pytest.raises(WeightsError, match="not an ONNX file"):
        read_onnx(tmp_path / "bad.onnx")
    with pytest.raises(WeightsError, match="no file"):
        read_onnx(tmp_path / "none.onnx")


def foreign(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"_{k}.{key.rsplit('.')[-1]}": value for k, (key, value) in enumerate(state.items())}


def test_tensors_in_order_get_timms_names(network: nn.Module) -> None:
    original = network.state_dict()
    assert digest(lift_in_order(foreign(original), TINY)) == digest(original)


def test_tensors_out_of_order_are_refused(network: nn.Module) -> None:
    names = list(network.state_dict())
    weight, running_mean = names.index("bn1.weight"), names.index("bn1.running_mean")
    names[weight], names[running_mean] = names[running_mean], names[weight]  # of the same shape
    swapped = {name: network.state_dict()[name] for name in names}
    with pytest.raises(WeightsError, match=r"is not bn1\.weight"):
        lift_in_order(swapped, TINY)
    with pytest.raises(WeightsError, match="in timm's order"):
        lift_in_order(dict(list(swapped.items())[:-1]), TINY)


def test_digest_sees_names_types_shapes_and_values() -> None:
    base = {"a": torch.arange(6.0)}
    others: list[dict[str, Tensor]] = [
        {"b": torch.arange(6.0)},
        {"a": torch.arange(6.0).reshape(2, 3)},
        {"a": torch.arange(6.0).double()},
        {"a": torch.arange(6.0).bfloat16()},
        {"a": torch.from_numpy(np.array([0, 1, 2, 3, 4, 5.0000005], np.float32))},
    ]
    assert len({digest(state) for state in [base, *others]}) == 6
    assert digest({"a": torch.arange(12.0)[::2] / 2}) == digest(base)
