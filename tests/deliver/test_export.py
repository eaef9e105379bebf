"""The exported graph answers as torch does, at sizes and batches it was not exported with."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from timm.layers import padding

from surgery.artifact.errors import ConfigError
from surgery.artifact.manifest import InputSpec
from surgery.artifact.session import open_session
from surgery.deliver.export import export_onnx
from surgery.nets.assemble import Model, build_model

TOLERANCE = 1e-4
NATIVE = InputSpec(size_rule="native")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def assembled(backbone: str, head: str, task: str, stages: tuple[str, ...] | None = None) -> Model:
    """A model with random weights; the head's last layer is made loud."""
    weights: Any = SimpleNamespace(state=None)
    model = build_model(backbone, head, task, 3, stages, 0.0, weights, seed=0)
    with torch.no_grad():
        last = model.head.output if task == "segment" else model.head.linear
        last.weight.mul_(100)
    return model


def compare(model: Model, path: Path, sizes: list[tuple[int, int, int]]) -> None:
    """Hold the file's answers against torch's on noise of each size (n, h, w)."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    model.eval()
    rng = np.random.default_rng(0)
    for n, h, w in sizes:
        images = rng.integers(0, 256, (n, h, w, 3), dtype=np.uint8)
        with torch.inference_mode():
            eager = [tensor.numpy() for tensor in model(torch.from_numpy(images))]
        exported = session.run(["logits", "embedding"], {"image": images})
        for one, other in zip(eager, exported, strict=True):
            assert one.shape == other.shape
            assert other.dtype == np.float32
            assert np.abs(one - other).max() <= TOLERANCE * max(1.0, np.abs(one).max())


def test_vgg16_with_deconv_at_every_size(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = assembled("vgg16", "deconv", "segment").train()
    folder = tmp_path / "out"
    folder.mkdir()
    path = folder / "model.onnx"
    export_onnx(model, "segment", NATIVE, path)
    console = capfd.readouterr()
    assert console.out == console.err == ""
    assert model.training
    assert all(p.requires_grad for p in model.head.parameters())
    assert [p.name for p in folder.iterdir()] == ["model.onnx"]
    compare(model, path, [(1, 1, 1), (3, 37, 53), (1, 16, 16), (1, 480, 360)])
    graph = onnx.load(path)
    assert graph.opset_import[0].version >= 18
    sides = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*graph.graph.input, *graph.graph.output)
    }
    assert sides == {"image": ["n", "h", "w", 3], "logits": ["n", 3, "h", "w"], "embedding": ["n", 512]}
    assert graph.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8


# One of each way a decoder is fed; the exporter takes seconds for each.
@pytest.mark.parametrize("head", ["fpn", "unet", "pspnet", "pan", "segformer"])
def test_segment_heads(head: str, tmp_path: Path) -> None:
    model = assembled("test_resnet", head, "segment")
    export_onnx(model, "segment", NATIVE, tmp_path / "model.onnx")
    compare(model, tmp_path / "model.onnx", [(1, 1, 1), (2, 70, 45)])


@pytest.mark.parametrize("head", ["avgmax", "gem"])
def test_classify_heads(head: str, tmp_path: Path) -> None:
    model = assembled("test_resnet", head, "classify")
    export_onnx(model, "classify", InputSpec("crop", width=48, height=40), tmp_path / "model.onnx")
    compare(model, tmp_path / "model.onnx", [(1, 40, 48), (3, 40, 48)])


@pytest.mark.parametrize(("head", "task"), [("avg", "classify"), ("deconv", "segment")])
def test_the_mirror_image_is_asked_inside_the_graph(head: str, task: str, tmp_path: Path) -> None:
    model = assembled("test_resnet", head, task).eval()
    images = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    with torch.inference_mode():
        plain, mirrored = model(images)[0], model(images.flip(2))[0]
        model.test_flips = True
        both, other_way = model(images)[0], model(images.flip(2))[0]
    if task == "segment":
        mirrored, other_way = mirrored.flip(3), other_way.flip(3)
    torch.testing.assert_close(both, (plain + mirrored) / 2)
    torch.testing.assert_close(both, other_way)
    assert not torch.allclose(both, plain)
    spec = NATIVE if task == "segment" else InputSpec("crop", 32, 32)
    export_onnx(model, task, spec, tmp_path / "m.onnx")
    sizes = [(1, 37, 41), (3, 64, 32)] if task == "segment" else [(1, 32, 32), (3, 32, 32)]
    compare(model, tmp_path / "m.onnx", sizes)


def test_padding_by_tensorflows_rule(tmp_path: Path) -> None:
    before = padding.get_same_padding
    model = assembled("tf_efficientnet_lite0", "deconv", "segment", ("stage2", "stage3"))
    export_onnx(model, "segment", NATIVE, tmp_path / "model.onnx")
    compare(model, tmp_path / "model.onnx", [(1, 70, 45)])
    assert padding.get_same_padding is before


def test_maps_from_inside_blocks(tmp_path: Path) -> None:
    model = assembled("legacy_xception", "avg", "classify", ("stage2", "stage3"))
    export_onnx(model, "classify", InputSpec("crop", width=64, height=64), tmp_path / "model.onnx")
    compare(model, tmp_path / "model.onnx", [(2, 64, 64)])


def test_a_classifier_needs_a_size(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="size"):
        export_onnx(assembled("test_resnet", "avg", "classify"), "classify", NATIVE, tmp_path / "m.onnx")


@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize("head", ["avg", "avgmax", "gem"])
def test_a_classifiers_graph_says_where_the_evidence_lies(head: str, flips: bool, tmp_path: Path) -> None:
    model = assembled("test_resnet", head, "classify", ("stage3", "stage4")).eval()
    model.test_flips = flips
    export_onnx(model, "classify", InputSpec("crop", 48, 40), tmp_path / "m.onnx")
    session = open_session(tmp_path / "m.onnx", "cpu", threads=1)
    assert session.explains
    images = np.random.default_rng(0).integers(0, 256, (3, 40, 48, 3), dtype=np.uint8)
    logits, embedding, cam = session.run_explained(images)
    assert cam.dtype == np.float32
    bias = model.head.linear.bias.detach().numpy()
    np.testing.assert_allclose(cam.mean(axis=(2, 3)) + bias, logits, rtol=1e-3, atol=1e-3)
    with torch.inference_mode():
        eager = [each.numpy() for each in model.explain(torch.from_numpy(images))]
    for one, other in zip(eager, (logits, embedding, cam), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-3, atol=1e-3 * np.abs(one).max())
    np.testing.assert_array_equal(session.run(images)[0], logits)
