"""The paper's network for digits: its layers, its stages, and that it is a backbone like any other."""

from __future__ import annotations

import pytest
import timm
import torch

from surgery.artifact.errors import ConfigError, WeightsError
from surgery.nets.assemble import build_model
from surgery.nets.catalogue import list_backbones
from surgery.nets.weights import LoadedWeights, load_weights

RANDOM = LoadedWeights(None, {})


def test_it_is_the_network_of_figure_4a() -> None:
    assert list_backbones("dann*") == ["dann_digits"]
    full = timm.create_model("dann_digits")
    layers = [(*m.weight.shape[:2], m.weight.shape[-1]) for m in full.modules() if hasattr(m, "weight")]
    assert layers[:4] == [(32, 3, 5), (48, 32, 5), (100, 48, 4), (100, 100, 1)]
    assert sum(p.numel() for p in full.parameters()) == 2_432 + 38_448 + 76_900 + 10_100 + 1_010
    assert full(torch.zeros(2, 3, 28, 28)).shape == (2, 10)


def test_its_stages_are_its_layers() -> None:
    model = build_model("dann_digits", "avg", "classify", 10, None, 0.0, RANDOM, 0)
    assert [(s.stride, s.channels) for s in model.backbone.info] == [(2, 32), (7, 48), (28, 100), (28, 100)]
    _, maps = model.backbone.run(model.normalise(torch.zeros(2, 28, 28, 3, dtype=torch.uint8)))
    assert [tuple(m.shape[1:]) for m in maps] == [(32, 12, 12), (48, 4, 4), (100, 1, 1), (100, 1, 1)]


def test_there_are_no_weights_and_no_other_size() -> None:
    with pytest.raises(WeightsError, match="no source is known"):
        load_weights("dann_digits", "imagenet")
    model = build_model("dann_digits", "avg", "classify", 10, None, 0.0, RANDOM, 0)
    with pytest.raises(ConfigError, match="28×28"):
        model(torch.zeros(1, 32, 32, 3, dtype=torch.uint8))
