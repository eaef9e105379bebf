"""From the checkpoints of a run to how its accuracy and that of what is made of it go together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from surgery.artifact.errors import ConfigError
from surgery.nets.assemble import build_model
from surgery.nets.weights import LoadedWeights
from surgery.study.checkpoints import (
    Checkpoint,
    CheckpointTraining,
    conclude,
    list_checkpoints,
    list_trainings,
    read_run,
    report,
    run_checkpoint,
    summarise,
)
from surgery.study.fitting import Recipe, make_network
from surgery.study.pictures import save_pictures
from surgery.study.start import Start
from surgery.train.checkpoint import Progress, load_judged, save_checkpoint


def write_run(folder: Path, strategy: str = "random", epochs: int = 5) -> Path:
    """Write a run as `finetune --keep-checkpoints all` leaves it; its accuracy rises by a tenth an epoch."""
    (folder / "checkpoints").mkdir(parents=True)
    config = {"strategy": strategy, "backbone": "yosinski_small", "weights": "random", "image_size": [32, 32]}
    (folder / "run.json").write_text(json.dumps({"kind": "finetune", "config": config}))
    for epoch in range(epochs):
        model = build_model("yosinski_small", "avg", "classify", 3, None, 0.0, LoadedWeights(None, {}), epoch)
        progress = Progress(epoch=epoch, history=[{"val": {"accuracy": epoch / 10}}])
        save_checkpoint(folder / "checkpoints", progress, model.state_dict(), None, "all")
    return folder


def test_checkpoints_come_with_their_accuracy_and_evenly_spread(tmp_path):
    run = write_run(tmp_path / "run")
    points = list_checkpoints(run)
    assert [(point.epoch, point.accuracy) for point in points] == [(k, k / 10) for k in range(5)]
    assert [point.epoch for point in list_checkpoints(run, 3)] == [0, 2, 4]
    assert len({point.sha256 for point in points}) == 5


def test_a_run_that_teaches_nothing_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"it holds no run\.json"):
        read_run(tmp_path)
    with pytest.raises(ConfigError, match="--strategy frozen trained no backbone"):
        read_run(write_run(tmp_path / "frozen", "frozen"))
    with pytest.raises(ConfigError, match="holds 1 checkpoints"):
        list_checkpoints(write_run(tmp_path / "short", epochs=1))


def test_a_training_starts_from_the_checkpoint(pictures, tmp_path):
    run = write_run(tmp_path / "run")
    config = read_run(run)
    digest = save_pictures(pictures, tmp_path)
    point = list_checkpoints(run)[3]
    (training,) = list_trainings(digest, config, [point], True, Recipe(1, 8), 1)
    folder = tmp_path / "one"
    assert 0 <= run_checkpoint(training, folder)["accuracy"] <= 1
    started = build_model("yosinski_small", "avg", "classify", 3, None, 0.0, LoadedWeights(None, {}), 3)
    from surgery.study import checkpoints as study

    seen = []
    original = study.make_network
    try:
        study.make_network = lambda *given: seen.append(original(*given)) or seen[-1]
        run_checkpoint(training, tmp_path / "two")
    finally:
        study.make_network = original
    for key, value in started.backbone.state_dict().items():  # frozen: it is still what it started as
        assert torch.equal(seen[0].backbone.state_dict()[key], value), key


def test_of_a_run_with_an_average_the_average_is_what_is_taken(tmp_path):
    """Its scores are those of the average, so raw weights would be paired with the accuracy of others."""
    run = write_run(tmp_path / "run", epochs=1)
    raw, average = ({"a": torch.full((2,), value)} for value in (1.0, 2.0))
    progress = Progress(epoch=1, history=[{"val": {"accuracy": 0.5}}])
    path = save_checkpoint(run / "checkpoints", progress, raw, None, "all", average)
    assert load_judged(path)["a"].tolist() == [2.0, 2.0]
    assert "head.linear.weight" in load_judged(next((run / "checkpoints").glob("epoch-0000-*")))
    assert [point.averaged for point in list_checkpoints(run)] == [False, True]


def test_a_model_with_an_average_is_fine_tuned_from_it(pictures, tmp_path, monkeypatch):
    run = write_run(tmp_path / "run", epochs=1)
    raw, average = (
        build_model("yosinski_small", "avg", "classify", 3, None, 0.0, LoadedWeights(None, {}), seed)
        for seed in (7, 8)
    )
    progress = Progress(epoch=1, history=[{"val": {"accuracy": 0.5}}])
    save_checkpoint(run / "checkpoints", progress, raw.state_dict(), None, "all", average.state_dict())
    digest = save_pictures(pictures, tmp_path)
    (training,) = list_trainings(digest, read_run(run), list_checkpoints(run)[1:], True, Recipe(1, 8), 1)
    seen = []
    monkeypatch.setattr(
        "surgery.study.checkpoints.make_network", lambda *given: seen.append(make_network(*given)) or seen[-1]
    )
    run_checkpoint(training, tmp_path / "one")
    wanted = average.backbone.state_dict()
    assert all(value.equal(wanted[key]) for key, value in seen[0].backbone.state_dict().items())


def made_up(targets):
    points = [Checkpoint(f"{k}", f"{k}", k, k / 10) for k in range(len(targets))]
    return {
        CheckpointTraining("", "n", Start("random", ""), point, False, Recipe(1), seed): {
            "accuracy": target + seed / 1000
        }
        for point, target in zip(points, targets, strict=True)
        for seed in range(3)
    }


@pytest.mark.parametrize(
    ("targets", "correlation", "said"),
    [
        ((0.1, 0.2, 0.3, 0.4), 1.0, "The last checkpoint is the best start"),
        ((0.4, 0.5, 0.3, 0.2), -0.8, "Use the checkpoint of epoch 1"),
    ],
)
def test_the_correlation_is_of_ranks_and_the_advice_follows(targets, correlation, said):
    course = summarise(made_up(targets))
    assert course.correlation.mean == pytest.approx(correlation)
    assert said in conclude(course)[1]
    assert len(report(course, "made up").rows) == len(targets)
