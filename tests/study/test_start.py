"""Pretrained weights by name: other weights under the same word are another training."""

from __future__ import annotations

import pytest
from safetensors.torch import save_file
from tiny_versions import NET, draw_stripes, store_version

from surgery.artifact.errors import WeightsError
from surgery.artifact.store import Store
from surgery.nets.assemble import build_model
from surgery.nets.weights import LoadedWeights
from surgery.study import checkpoints, cut, shuffle
from surgery.study.checkpoints import Checkpoint
from surgery.study.fitting import Recipe
from surgery.study.runner import key_of
from surgery.study.start import load_start, name_start

NETWORK = "yosinski_small"


def write_weights(path, seed):
    model = build_model(NETWORK, "avg", "classify", 4, None, 0.0, LoadedWeights(None, {}), seed)
    save_file({key: value.contiguous() for key, value in model.backbone.timm_state().items()}, path)


def list_keys(word):
    start, _ = name_start(NETWORK, word)
    option = cut.Option("head", 3, "stage3", 1, 1)
    config = {"strategy": "partial", "backbone": NETWORK, "weights": word}
    trainings = [
        *cut.list_trainings("", NETWORK, start, [option], Recipe(1), 1),
        *shuffle.list_trainings("", NETWORK, start, [8], False, Recipe(1), 1),
        *checkpoints.list_trainings("", config, [Checkpoint("", "", 1, 0.5)], False, Recipe(1), 1),
    ]
    return [key_of(training) for training in trainings]


def test_other_weights_in_the_same_file_are_other_trainings(tmp_path):
    path = tmp_path / "own.safetensors"
    write_weights(path, 1)
    before, start = list_keys(str(path)), name_start(NETWORK, str(path))[0]
    assert list_keys(str(path)) == before
    assert load_start(NETWORK, start).state is not None
    write_weights(path, 2)
    assert not set(before) & set(list_keys(str(path)))
    with pytest.raises(WeightsError, match="other weights than when the study began"):
        load_start(NETWORK, start)


def test_a_stored_model_is_named_by_its_number(tmp_path):
    data = draw_stripes(tmp_path / "stripes")
    store_version(data)
    first, _ = name_start(NET, "tiny")
    store_version(data, moved_by=1)
    Store().promote("tiny", 2)
    second, _ = name_start(NET, "tiny")
    assert (first.word, second.word) == ("tiny@1", "tiny@2")
    assert first.sha256 != second.sha256
    assert name_start(NET, first.word)[0] == first


def test_tensors_without_a_file_are_named_by_themselves_and_random_ones_not(monkeypatch):
    found = [
        build_model(NETWORK, "avg", "classify", 4, None, 0.0, LoadedWeights(None, {}), seed)
        for seed in (1, 2)
    ]
    digests = set()
    for model in found:
        loaded = LoadedWeights(model.backbone.timm_state(), {"asked": "imagenet"})
        monkeypatch.setattr("surgery.study.start.load_weights", lambda *given, loaded=loaded: loaded)
        digests.add(name_start(NETWORK, "imagenet")[0].sha256)
    assert len(digests) == 2
    monkeypatch.undo()
    assert name_start(NETWORK, "random")[0].sha256 == ""
