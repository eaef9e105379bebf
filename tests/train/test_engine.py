"""The training loop: what moves, what does not, and that a stopped run ends like one never stopped."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from surgery.artifact.errors import ConfigError, DiskFullError, TrainingError
from surgery.artifact.manifest import InputSpec
from surgery.data.readers import read_table
from surgery.data.targets import resolve_target
from surgery.nets.assemble import Model, build_model
from surgery.nets.backbone import Backbone
from surgery.nets.weights import LoadedWeights
from surgery.train import checkpoint, cut, feed, rule
from surgery.train.checkpoint import load_tensors
from surgery.train.device import check_trackers, make_accelerator
from surgery.train.engine import Loop
from surgery.train.feed import Feed
from surgery.train.losses import make_loss
from surgery.train.optimizers import make_optimizer
from surgery.train.options import Options
from surgery.train.reporting import Reporter
from surgery.train.strategies import Phase
from surgery.train.supervised import Supervised


def make_loop(
    data: Path,
    folder: Path,
    *firsts: int,
    cache_gib: float = 1.0,
    epochs: int = 2,
    lr: float = 1e-3,
    views: int = 2,
    dropout: float = 0.3,
    backbone: str = "test_efficientnet",
    head: str | None = None,
    several: bool = False,
    sampler: str = "uniform",
    batch_size: int = 5,
    scales: tuple[float, ...] = (1.0,),
    patience: int | None = None,
    side: int = 32,
    **options,
) -> Loop:
    table = read_table(data)
    if several:
        items = tuple(replace(item, label=None, labels=(item.label,)) for item in table.items)
        table = replace(table, multilabel=True, items=items)
    segment = table.task == "segment"
    targets = resolve_target(table, ("box",) if segment else (), ("void",) if segment else ())
    head = head or ("deconv" if segment else "avg")
    weights = LoadedWeights(None, {})
    outputs = targets.output.logits
    model = build_model(backbone, head, table.task, outputs, None, dropout, weights, 0)
    spec = InputSpec("native") if segment else InputSpec("crop", side, side)
    phases = tuple(Phase(f"from {first}", first, epochs, lr, lr / 10, patience, scales) for first in firsts)
    accelerator = make_accelerator("cpu", "fp32")

    def open_feed(first: int, scale: float = 1.0) -> Feed:
        kept = views if first else 0
        augment = "flip" if segment else "light"
        return Feed(
            model, first, table, spec, targets, augment, kept, 7, torch.device("cpu"), 2, cache_gib,
            sampler=sampler, scale=scale,
        )  # fmt: skip

    mixing = {key: options.pop(key) for key in ("mixup", "cutmix") if key in options}
    settings = {"train_bn": False, "keep_checkpoints": "2", "checkpoint_minutes": 60.0} | options
    chosen = Options(batch_size, 1e-2, 0.1, 1.0, seed=3, **settings)
    loss = make_loss(targets.output, 0.0)
    rule = Supervised(mixing.get("mixup", 0.0), mixing.get("cutmix", 0.0), 3)
    return Loop(model, phases, open_feed, loss, rule, chosen, accelerator, folder, Reporter())


def stages_of(loop: Loop) -> int:
    return len(loop.model.backbone.info)


def state(model: Model) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def losses(loop: Loop) -> list[float]:
    history = loop.run(resume=False).history
    return [row[key] for row in history for key in ("train_loss", "val_loss") if row[key] is not None]


@pytest.mark.parametrize(("data", "cut"), [("stripes", 6), ("stripes", 4), ("boxes", 5), ("boxes", 3)])
def test_the_cache_changes_no_loss(data, cut, tmp_path, request):
    folder = request.getfixturevalue(data)
    cached = losses(make_loop(folder, tmp_path / "a", cut))
    plain = losses(make_loop(folder, tmp_path / "b", cut, cache_gib=0))
    assert len(cached) == 5
    assert cached == pytest.approx(plain, abs=1e-3)


def test_images_with_several_labels_are_learnt(stripes, tmp_path):
    loop = make_loop(stripes, tmp_path / "a", 0, several=True, epochs=8, lr=1e-2)
    outcome = loop.run(resume=False)
    assert set(outcome.before) == {"map", "macro_f1", "micro_f1", "accuracy"}
    assert max(row["val"]["map"] for row in outcome.history) > 0.9


def test_a_cache_that_holds_a_part_gives_the_very_same_run(boxes, tmp_path, monkeypatch):
    whole = losses(make_loop(boxes, tmp_path / "a", 5))
    plan = feed.ActivationCache.plan
    monkeypatch.setattr(
        feed.ActivationCache, "plan", lambda *given: feed.CachePlan(plan(*given).record_bytes, 9, 1)
    )
    monkeypatch.setenv("SURGERY_CACHE", str(tmp_path / "other"))
    part = losses(make_loop(boxes, tmp_path / "b", 5))
    assert part == pytest.approx(whole, abs=2e-5)


def test_no_epoch_runs_the_frozen_part(boxes, tmp_path, monkeypatch):
    loop = make_loop(boxes, tmp_path / "run", 5, epochs=3)
    images = []
    run = Backbone.run

    def count(self, x, start=0, stop=None):
        images.append(len(x))
        return run(self, x, start, stop)

    monkeypatch.setattr(Backbone, "run", count)
    loop.run(resume=False)
    assert sum(images) == 12 * 2 + 4  # each view of each image once, val once
    images.clear()
    make_loop(boxes, tmp_path / "again", 5, epochs=1).run(resume=False)
    assert not images  # a second run finds everything


@pytest.mark.parametrize("train_bn", [False, True])
def test_frozen_stages_keep_weights_and_statistics(stripes, tmp_path, train_bn):
    loop = make_loop(stripes, tmp_path / "run", 3, train_bn=train_bn, epochs=1)
    before = state(loop.model)
    moved = set()
    save = loop._save

    def spy(progress, phase):
        now = loop.model.state_dict()
        moved.update(key for key in now if not torch.equal(now[key], before[key]))
        save(progress, phase)

    loop._save = spy
    loop.run(resume=False)
    stages = {key.split(".")[2] for key in moved if key.startswith("backbone.")}
    assert stages == {"3", "4", "5"}
    assert any(key.startswith("head.") for key in moved)
    assert any("running_mean" in key for key in moved) == train_bn


def test_gradual_goes_on_from_the_best_head(stripes, tmp_path):
    loop = make_loop(stripes, tmp_path / "run", 6, 0, epochs=2)
    history = loop.run(resume=False).history
    assert [row["phase"] for row in history] == ["from 6"] * 3 + ["from 0"] * 2
    assert [row["epoch"] for row in history] == [0, 1, 2, 3, 4]


def test_the_model_ends_with_the_best_weights_not_the_last(stripes, tmp_path):
    loop = make_loop(stripes, tmp_path / "run", 6, epochs=4)
    outcome = loop.run(resume=False)
    best = max(outcome.history, key=lambda row: (row["val"]["accuracy"], -row["val_loss"]))
    assert outcome.best_epoch == best["epoch"]
    (path,) = (tmp_path / "run" / "checkpoints").glob("best-*.safetensors")
    assert path.stem == f"best-{outcome.best_epoch:04d}"
    kept = load_tensors(path)
    now = loop.model.state_dict()
    assert all(torch.equal(now[key], kept[key]) for key in kept)


EVERYTHING = {
    "accumulate": 2,
    "ema": 0.9,
    "mixup": 0.4,
    "cutmix": 1.0,
    "optimizer": "sgd",
    "sampler": "balanced",
}


@pytest.mark.parametrize(
    ("firsts", "stop_after", "more"),
    [
        ((6,), 2, {}),
        ((6,), 5, {"optimizer": "lion"}),
        ((6, 3), 10, {}),  # after the last step of the first phase
        ((6, 3), 13, {"optimizer": "nadamw"}),
        ((0,), 7, {}),
        ((6, 3), 12, EVERYTHING),
    ],
)
def test_a_stopped_run_ends_bit_for_bit_like_one_never_stopped(
    firsts, stop_after, more, stripes, tmp_path, monkeypatch
):
    undisturbed = make_loop(stripes, tmp_path / "a", *firsts, **more)
    undisturbed.run(resume=False)
    steps = []
    step = Supervised.learn

    def count(self, *given):
        steps.append(1)
        return step(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(Supervised, "learn", count)
        patch.setattr(rule, "stop_requested", lambda: len(steps) >= stop_after)
        with pytest.raises(KeyboardInterrupt):
            make_loop(stripes, tmp_path / "b", *firsts, **more).run(resume=False)
    torch.rand(17)  # another process would have another random state
    resumed = make_loop(stripes, tmp_path / "b", *firsts, **more)
    outcome = resumed.run(resume=True)
    assert same(state(resumed.model), state(undisturbed.model))
    assert len(steps) == stop_after
    assert [row["epoch"] for row in outcome.history] == list(range(len(outcome.history)))


def test_batches_that_make_one_step_together_train_like_one_large_batch(stripes, tmp_path):
    large = make_loop(stripes, tmp_path / "a", 4, batch_size=8, dropout=0)
    small = make_loop(stripes, tmp_path / "b", 4, batch_size=2, accumulate=4, dropout=0)
    assert losses(small) == pytest.approx(losses(large), abs=1e-5)
    apart = make_loop(stripes, tmp_path / "c", 4, batch_size=2, dropout=0)
    assert losses(apart) != pytest.approx(losses(large), abs=1e-3)


def test_the_average_is_what_is_scored_and_kept(stripes, tmp_path):
    plain = make_loop(stripes, tmp_path / "a", 6, lr=0.05, epochs=3)
    plain.run(resume=False)
    loop = make_loop(stripes, tmp_path / "b", 6, lr=0.05, epochs=3, ema=0.999)
    seen = []
    save = Loop._save

    def spy(self, progress, state):
        live = {key: value.clone() for key, value in self._weights().items()}
        seen.append((live, {key: value.clone() for key, value in state.average.tensors.items()}))
        save(self, progress, state)

    loop._save = spy.__get__(loop)
    outcome = loop.run(resume=False)
    last_live, last_average = seen[-1]
    assert any(not torch.equal(last_live[key], last_average[key]) for key in last_live)
    best = seen[outcome.best_epoch][1]
    kept = {key: loop.model.state_dict()[key] for key in best}
    assert same(kept, best)


def test_the_same_rate_for_all_or_less_further_down(stripes, tmp_path):
    loop = make_loop(stripes, tmp_path / "a", 0, layer_decay=0.5)
    optimizer = make_optimizer(loop.model, loop.phases[0], 0.1, "adamw", 0.5)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    for k, stage in enumerate(loop.model.backbone.stages):
        assert {rates[id(p)] for p in stage.parameters()} == {1e-4 * 0.5 ** (5 - k)}
    assert {rates[id(p)] for p in loop.model.head.parameters()} == {1e-3}
    decays = {
        group["weight_decay"] for group in optimizer.param_groups for p in group["params"] if p.ndim == 1
    }
    assert decays == {0.0}


def test_what_is_computed_twice_trains_alike(stripes, tmp_path):
    kept = make_loop(stripes, tmp_path / "a", 2)
    twice = make_loop(stripes, tmp_path / "b", 2)
    twice.model.backbone.recompute = True
    assert losses(twice) == pytest.approx(losses(kept), abs=1e-6)


def test_old_checkpoints_go_the_best_stays(stripes, tmp_path):
    make_loop(stripes, tmp_path / "two", 6, epochs=4).run(resume=False)
    names = sorted(path.name for path in (tmp_path / "two" / "checkpoints").iterdir())
    assert names[0].startswith("best-")
    assert names[1:] == [
        "epoch-0003-step-000000.safetensors",
        "epoch-0004-step-000000.safetensors",
    ]
    make_loop(stripes, tmp_path / "all", 6, epochs=4, keep_checkpoints="all").run(resume=False)
    assert len(list((tmp_path / "all" / "checkpoints").glob("epoch-*"))) == 5


def test_checkpoints_hold_only_what_learns(stripes, tmp_path):
    make_loop(stripes, tmp_path / "run", 6).run(resume=False)
    (path,) = (tmp_path / "run" / "checkpoints").glob("best-*.safetensors")
    keys = load_tensors(path)
    assert keys.keys() == {"head.linear.weight", "head.linear.bias"}


def test_a_loss_that_is_not_a_number_names_step_and_images(stripes, tmp_path):
    loop = make_loop(stripes, tmp_path / "run", 6)
    loop.loss = lambda logits, targets: logits.sum() * float("nan")
    with pytest.raises(
        TrainingError, match=r"epoch 1 step 0: the loss is nan; images of the batch: \d"
    ) as caught:
        loop.run(resume=False)
    assert "Lower --lr" in caught.value.hint
    (best,) = (tmp_path / "run" / "checkpoints").glob("best-*.safetensors")
    assert load_tensors(best)


def test_a_batch_that_does_not_fit_names_one_that_does(stripes, tmp_path, monkeypatch):
    loop = make_loop(stripes, tmp_path / "run", 6, batch_size=12)
    forward = cut.Suffix.forward

    def small(self, inputs, size):
        if not torch.is_inference_mode_enabled() and len(next(iter(inputs.values()))) > 4:
            raise torch.OutOfMemoryError("out of memory")
        return forward(self, inputs, size)

    monkeypatch.setattr(cut.Suffix, "forward", small)
    with pytest.raises(TrainingError, match="12 images at once do not fit") as caught:
        loop.run(resume=False)
    assert "--batch-size 3 fits; --accumulate 4 " in caught.value.hint


def test_one_image_may_be_what_fits_where_a_head_pools_to_one_position(boxes, tmp_path, monkeypatch):
    loop = make_loop(boxes, tmp_path / "run", 6, batch_size=2, head="deeplabv3plus", backbone="test_resnet")
    forward = cut.Suffix.forward

    def small(self, inputs, size):
        if not torch.is_inference_mode_enabled() and len(next(iter(inputs.values()))) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return forward(self, inputs, size)

    monkeypatch.setattr(cut.Suffix, "forward", small)
    with pytest.raises(TrainingError, match="2 images at once do not fit") as caught:
        loop.run(resume=False)
    assert "--batch-size 1 fits; --accumulate 2 " in caught.value.hint


@pytest.mark.parametrize("place", ["fill", "fetch", "judge"])
def test_memory_that_is_full_outside_a_step_is_said_too(stripes, tmp_path, monkeypatch, place):
    loop = make_loop(stripes, tmp_path / "run", 3, batch_size=12, cache_gib=0 if place == "fetch" else 1)

    def fail(*_):
        raise torch.OutOfMemoryError("out of memory")

    if place == "judge":
        monkeypatch.setattr(Loop, "_judge", fail)
    else:
        monkeypatch.setattr(Feed, "_run_frozen", fail)
    if place == "fetch":
        monkeypatch.setattr(Loop, "_validate", lambda *_: None)
        monkeypatch.setattr(Loop, "_save", lambda *_: None)
    with pytest.raises(TrainingError, match=r"the memory of .* is full") as caught:
        loop.run(resume=False)
    assert "smaller --batch-size than 12" in caught.value.hint


def test_a_tracker_that_is_not_installed_says_how_to_get_it():
    check_trackers(("tensorboard",))
    with pytest.raises(ConfigError, match="mlflow") as caught:
        check_trackers(("tensorboard", "mlflow"))
    assert "pip install mlflow" in caught.value.hint


def test_a_small_data_set_is_learnt(boxes, tmp_path):
    options = {"epochs": 40, "lr": 3e-3, "backbone": "test_resnet", "dropout": 0, "train_bn": True}
    loop = make_loop(boxes, tmp_path / "run", 0, **options)
    outcome = loop.run(resume=False)
    assert outcome.history[outcome.best_epoch]["val"]["iou"] > 0.6
    assert outcome.history[outcome.best_epoch]["val"]["iou"] > outcome.before["iou"] + 0.2
    json.dumps(outcome.history)


def test_killed_between_the_best_weights_and_their_checkpoint(stripes, tmp_path, monkeypatch):
    undisturbed = make_loop(stripes, tmp_path / "a", 6, 3)
    undisturbed.run(resume=False)
    save = Loop._save

    def die(self, progress, phase):
        if progress.phase == 1:
            raise SystemError("killed")
        save(self, progress, phase)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_save", die)
        with pytest.raises(SystemError):
            make_loop(stripes, tmp_path / "b", 6, 3).run(resume=False)
    resumed = make_loop(stripes, tmp_path / "b", 6, 3)
    resumed.run(resume=True)
    assert same(state(resumed.model), state(undisturbed.model))


def test_another_head_finds_no_maps_of_another_padding(boxes, tmp_path):
    for head, folder in (("pan", "a"), ("segformer", "b")):  # of the same stages
        with_cache = losses(make_loop(boxes, tmp_path / folder, 5, head=head, backbone="test_resnet"))
        other = tmp_path / f"{folder}0"
        plain = losses(make_loop(boxes, other, 5, head=head, backbone="test_resnet", cache_gib=0))
        assert with_cache == pytest.approx(plain, abs=1e-3)


@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_a_full_disk_leaves_the_checkpoint_before(call, stripes, tmp_path, monkeypatch):
    undisturbed = make_loop(stripes, tmp_path / "a", 6, 3)
    undisturbed.run(resume=False)
    save, calls = checkpoint.save, []

    def full(*given):
        calls.append(1)
        if len(calls) > call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return save(*given)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", full)
        with pytest.raises(DiskFullError, match="the ones before it are whole") as caught:
            make_loop(stripes, tmp_path / "b", 6, 3).run(resume=False)
    assert caught.value.exit_code == 2
    assert "--resume" in caught.value.hint
    left = list((tmp_path / "b" / "checkpoints").iterdir())
    assert len(left) == min(call, 3)  # the best weights, and no more checkpoints than are kept
    assert all(load_tensors(path) for path in left)
    resumed = make_loop(stripes, tmp_path / "b", 6, 3)
    resumed.run(resume=True)
    assert same(state(resumed.model), state(undisturbed.model))


def test_stopped_between_two_phases_it_goes_on_with_the_next(stripes, tmp_path, monkeypatch):
    undisturbed = make_loop(stripes, tmp_path / "a", 6, 3)
    undisturbed.run(resume=False)
    monkeypatch.setenv("SURGERY_CACHE", str(tmp_path / "other"))
    fill = feed.Feed.fill

    def stop(self, progress):
        if self.cut == 3:
            raise KeyboardInterrupt
        fill(self, progress)

    with monkeypatch.context() as patch:
        patch.setattr(feed.Feed, "fill", stop)
        with pytest.raises(KeyboardInterrupt):
            make_loop(stripes, tmp_path / "b", 6, 3).run(resume=False)
    resumed = make_loop(stripes, tmp_path / "b", 6, 3)
    outcome = resumed.run(resume=True)
    assert same(state(resumed.model), state(undisturbed.model))
    assert [row["phase"] for row in outcome.history] == ["from 6"] * 3 + ["from 3"] * 2
