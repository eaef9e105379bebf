"""A classifier of scikit-learn behind a network: one graph that answers as both do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from surgery.artifact.errors import StoreError
from surgery.artifact.manifest import InputSpec
from surgery.artifact.session import open_session
from surgery.config import CLASSIFIERS
from surgery.deliver.classifier import CLASSIFIER_FILE, from_sklearn, join_classifier, open_classifier
from surgery.deliver.export import export_onnx
from surgery.deliver.fp16 import write_fp16
from surgery.deliver.layers import read_parts
from surgery.deliver.quantise import find_ranges, quantise
from surgery.nets.assemble import build_model
from surgery.nets.weights import load_weights
from surgery.train import classifiers
from surgery.train.classifiers import Examples, choose_classifier

WIDTH = 12


def fit(kind: str, classes: int, width: int = WIDTH):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(48, width)).astype(np.float32)
    labels = (features[:, :classes] + 0.5 * rng.normal(size=(48, classes))).argmax(1)
    examples = Examples(features, labels, np.arange(48), np.ones(48, bool))
    names = [str(i) for i in range(classes)]
    return choose_classifier(examples, (kind,), 3, 0, False, names, lambda done, total: None)[0]


@pytest.fixture(autouse=True)
def small_forests(monkeypatch):
    monkeypatch.setattr(classifiers, "TREES", 20)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_each_kind_answers_in_onnx_as_in_scikit_learn(kind, classes, tmp_path):
    classifier = from_sklearn(fit(kind, classes), WIDTH, {})
    (tmp_path / CLASSIFIER_FILE).write_bytes(classifier.graph)
    opened = open_classifier(tmp_path, {})
    new = np.random.default_rng(1).normal(size=(64, WIDTH)).astype(np.float32)
    mine, theirs = classifier.decide(new), opened.decide(new)
    assert mine.shape == theirs.shape == (64, classes)
    assert np.abs(mine - theirs).max() < 2e-4
    assert len(opened.decide(new[:1])) == 1
    assert np.ptp(mine, axis=0).min() > 0.5  # it does not say the same of all


@pytest.mark.parametrize("head", ["avg", "avgmax", "gem"])
def test_joined_to_a_network_the_graph_gives_the_features_and_what_follows_from_them(head, tmp_path):
    model = build_model(
        "test_efficientnet", head, "classify", 0, ("stage2", "stage4"), 0.0,
        load_weights("test_efficientnet", "random"), 0,
    ).eval()  # fmt: skip
    images = np.random.default_rng(0).integers(0, 255, (3, 32, 32, 3)).astype(np.uint8)
    with torch.inference_mode():
        features = model(torch.from_numpy(images))[0].numpy()
    lengths = np.linalg.norm(features, axis=1) ** 2
    assert np.allclose(lengths, features.shape[1], rtol=1e-4)  # each stage's part has the length √d
    classifier = from_sklearn(fit("logistic", 3, features.shape[1]), features.shape[1], {})
    path = tmp_path / "model.onnx"
    export_onnx(model, "classify", InputSpec("crop", 32, 32), path)
    join_classifier(path, classifier)
    logits, embedding = open_session(path, "cpu").run(images)
    assert np.abs(embedding - features).max() < 1e-4
    assert np.abs(logits - classifier.decide(embedding)).max() < 2e-4
    outputs = onnx.load(path, load_external_data=False).graph.output
    sides = {o.name: [d.dim_param or d.dim_value for d in o.type.tensor_type.shape.dim] for o in outputs}
    assert sides == {"logits": ["n", 3], "embedding": ["n", features.shape[1]]}
    _check_precisions(path, images, logits, embedding)


def _check_precisions(path: Path, images, logits, embedding) -> None:
    """The network in front loses bits; pooling and classifier stay in float."""
    parts = read_parts(path, "classify")
    assert parts.layers
    assert all(name.startswith("network/") for name in parts.inside)
    ranges = find_ranges(parts, iter([image[None] for image in images]))
    onnx.save(quantise(parts, ranges["extremes"], parts.layers), path.with_name("int8.onnx"))
    write_fp16(parts, path.with_name("fp16.onnx"))
    for name, bound in (("int8.onnx", 0.3), ("fp16.onnx", 0.03)):
        coarse, features = open_session(path.with_name(name), "cpu").run(images)
        assert 0 < np.abs(features - embedding).max() < bound * np.abs(embedding).max()
        assert np.abs(coarse - logits).max() < 2 * bound * max(1, np.abs(logits).max())


def test_a_damaged_classifier_is_an_error_of_the_store(tmp_path: Path):
    (tmp_path / CLASSIFIER_FILE).write_bytes(b"no graph")
    with pytest.raises(StoreError, match=r"classifier\.onnx"):
        open_classifier(tmp_path, {})
