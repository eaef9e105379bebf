"""Progressive resizing: what the network sees, what validation sees, and that a stop changes nothing."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from test_engine import make_loop, same, state

from surgery.artifact.errors import ConfigError
from surgery.artifact.manifest import InputSpec
from surgery.config import FinetuneConfig
from surgery.data.resizing import describe_size, shrink_input, training_size
from surgery.recipes.finetune import check_growth
from surgery.recipes.plan import describe_growth
from surgery.train import cut, rule
from surgery.train.checkpoint import load_tensors, newest_checkpoint
from surgery.train.cut import Suffix
from surgery.train.engine import Loop
from surgery.train.feed import Feed
from surgery.train.strategies import Phase, plan_phases, plan_scales
from surgery.train.supervised import Supervised

STAGES = ("stage1", "stage2", "stage3")
GROWING = {"scales": (0.5, 0.75, 1.0), "epochs": 4}


@pytest.mark.parametrize(
    ("full", "scale", "size"),
    [
        ((224, 224), 0.5, (128, 128)),
        ((224, 224), 0.75, (160, 160)),
        ((224, 224), 1.0, (224, 224)),
        ((480, 360), 0.5, (256, 192)),
        ((64, 40), 0.25, (32, 32)),
        ((64, 24), 0.25, (32, 24)),
        ((100, 100), 0.99, (96, 96)),
    ],
)
def test_a_fixed_input_shrinks_to_multiples_of_32(full, scale, size):
    for size_rule in ("crop", "resize"):
        spec = InputSpec(size_rule, *full)
        small = shrink_input(spec, scale)
        assert (small.width, small.height) == size
        assert training_size((900, 500), spec, scale) == size
        assert describe_size(spec, scale) == f"{size[0]}×{size[1]}"


def test_an_image_of_its_own_size_shrinks_by_the_factor():
    spec = InputSpec("native", max_pixels=10_000)
    assert training_size((80, 61), spec, 0.5) == (40, 30)
    assert training_size((200, 200), spec, 0.5) == (50, 50)
    assert training_size((3, 1), spec, 0.25) == (1, 1)


@pytest.mark.parametrize(
    ("epochs", "begins"),
    [(30, [(0, 0.5), (10, 0.75), (20, 1.0)]), (11, [(0, 0.5), (3, 0.75), (6, 1.0)]), (2, [(0, 0.5), (1, 1.0)])],
)  # fmt: skip
def test_a_phase_grows_in_three_equal_steps_and_ends_at_the_full_size(epochs, begins):
    phase = Phase("all", 0, epochs, 1e-3, 1e-3, None, plan_scales(0.5, epochs))
    assert list(phase.growth) == begins
    assert [phase.scale_at(epoch) for epoch, _ in begins] == [scale for _, scale in begins]
    assert phase.scale_at(begins[1][0] - 1) == 0.5
    assert phase.scale_at(epochs - 1) == phase.scale_at(epochs) == 1.0


def test_only_the_first_phase_grows():
    config = FinetuneConfig("d", "n", strategy="gradual", epochs=20, resize_from=0.4)
    head, tune = plan_phases(config, "classify", STAGES)
    assert head.scales == pytest.approx((0.4, 0.7, 1.0))
    assert tune.scales == (1.0,)
    assert plan_phases(replace(config, resize_from=1.0), "classify", STAGES)[0].scales == (1.0,)
    with pytest.raises(ConfigError, match=r"--resize-from 0\.4: in one epoch"):
        plan_phases(replace(config, strategy="full", epochs=1), "classify", STAGES)
    with pytest.raises(ConfigError, match="--resize-from"):
        replace(config, resize_from=0.0)


def watch_sizes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, tuple[int, int], tuple[int, int]]]:
    """Note of each batch whether it trains, its size, and the size of its targets or of its first map."""
    seen = []
    forward = Suffix.forward

    def note(self, inputs, size):
        first = next(iter(inputs.values()))
        sides = first.shape[1:3] if first.dtype == torch.uint8 else first.shape[2:]
        seen.append((not torch.is_inference_mode_enabled(), size, tuple(sides)))
        return forward(self, inputs, size)

    monkeypatch.setattr(cut.Suffix, "forward", note)
    return seen


def last_tensors(run):
    """Return weights, moments and random state at the end, whichever epoch was the best."""
    return load_tensors(newest_checkpoint(run / "checkpoints"))


def in_turn(sizes):
    return [size for size, _ in itertools.groupby(sizes)]


@pytest.mark.parametrize("first", [0, 4])
def test_training_grows_and_validation_is_always_whole(first, stripes, tmp_path, monkeypatch):
    seen = watch_sizes(monkeypatch)
    loop = make_loop(stripes, tmp_path / "run", first, side=96, **GROWING)
    history = loop.run(resume=False).history
    assert in_turn(size for training, size, _ in seen if training) == [(64, 64), (96, 96)]  # .5 and .75: 64
    assert {size for training, size, _ in seen if not training} == {(96, 96)}
    if first == 0:
        assert all(size == sides for _, size, sides in seen)
    else:  # the maps of the frozen part are as much smaller
        assert {size: sides for _, size, sides in seen} == {(64, 64): (4, 4), (96, 96): (6, 6)}
    assert [row["epoch"] for row in history] == [0, 1, 2, 3, 4]
    assert not seen[0][0]  # what was before training is known at the full size too


@pytest.mark.parametrize("first", [0, 5])
def test_images_and_masks_of_their_own_size_shrink_together(first, boxes, tmp_path, monkeypatch):
    seen = watch_sizes(monkeypatch)
    shapes = []
    loop = make_loop(boxes, tmp_path / "run", first, **GROWING)
    loss = loop.loss

    def note(logits, targets):
        shapes.append((tuple(logits.shape[2:]), tuple(targets.shape[1:])))
        return loss(logits, targets)

    loop.loss = note
    loop.run(resume=False)
    assert all(logits == targets for logits, targets in shapes)
    stretches = itertools.groupby(seen, key=lambda each: each[0])
    sizes = in_turn({size for _, size, _ in each} for training, each in stretches if training)
    assert sizes == [{(20, 24), (18, 20)}, {(30, 36), (28, 30)}, {(40, 48), (37, 40)}]
    assert {size for training, size, _ in seen if not training} == {(40, 48), (37, 40)}


def test_a_shrunk_mask_shows_what_its_image_shows(boxes, tmp_path):
    loop = make_loop(boxes, tmp_path / "run", 0)
    half = loop.open_feed(0, 0.5)
    for batch in half.epoch(0, 4):
        bright = batch.inputs["images"].float().mean(3) > 120
        box, counted = batch.targets == 1, batch.targets != 255
        agree = (bright == box)[counted].float().mean()
        assert agree > 0.9
        assert box.any()


def test_each_size_has_a_cache_of_its_own(stripes, tmp_path):
    loop = make_loop(stripes, tmp_path / "run", 4, side=96)
    keys = []
    for scale in (0.25, 0.5, 1.0):
        opened = loop.open_feed(4, scale)
        keys.append(opened.cache.folder)
        opened.close()
        opened.close()  # a second time is no harm
    assert len(set(keys)) == 3
    for scale, key in ((0.6, keys[1]), (0.95, keys[2])):  # rounded to the same size
        same_size = loop.open_feed(4, scale)
        assert same_size.cache.folder == key
        same_size.close()


def test_one_schedule_runs_over_all_sizes(boxes, tmp_path, monkeypatch):
    shares = {}
    for name, scales in (("growing", (0.5, 0.75, 1.0)), ("whole", (1.0,))):
        rates = shares[name] = []
        step = Supervised.learn

        def note(self, batch, update, step=step, rates=rates):
            rates.append([group["lr"] for group in update.optimizer.param_groups])
            return step(self, batch, update)

        with monkeypatch.context() as patch:
            patch.setattr(Supervised, "learn", note)
            make_loop(boxes, tmp_path / name, 0, epochs=4, scales=scales).run(resume=False)
    assert shares["growing"] == shares["whole"]


def test_patience_counts_at_the_full_size_only(stripes, tmp_path, monkeypatch):
    def never_better(self, progress, state, means):
        progress.history.append({"epoch": progress.epoch, "val": {}})
        progress.since_best += means is not None

    monkeypatch.setattr(Loop, "_judge", never_better)
    monkeypatch.setattr(Loop, "_restore_best", lambda self, progress: None)
    loop = make_loop(stripes, tmp_path / "run", 0, epochs=9, scales=(0.5, 0.75, 1.0), patience=2, side=96)
    assert len(loop.run(resume=False).history) == 1 + 6 + 2
    plain = make_loop(stripes, tmp_path / "plain", 0, epochs=9, patience=2)
    assert len(plain.run(resume=False).history) == 1 + 2


@pytest.mark.parametrize(
    ("data", "first", "stop_after", "more"),
    [
        ("stripes", 4, 4, {}),  # within the first size
        ("stripes", 4, 5, {"ema": 0.9, "optimizer": "sgd"}),  # at the change
        ("stripes", 0, 8, {"accumulate": 2}),  # within the second
        ("boxes", 5, 3, {}),
    ],
)
def test_a_stopped_run_ends_bit_for_bit_like_one_never_stopped(
    data, first, stop_after, more, tmp_path, monkeypatch, request
):
    folder = request.getfixturevalue(data)
    options = {"epochs": 3, "scales": (0.5, 0.75, 1.0), "side": 96} | more
    undisturbed = make_loop(folder, tmp_path / "a", first, **options)
    undisturbed.run(resume=False)
    steps = []
    step = Supervised.learn

    def count(self, *given):
        steps.append(1)
        return step(self, *given)

    monkeypatch.setenv("SURGERY_CACHE", str(tmp_path / "other"))
    with monkeypatch.context() as patch:
        patch.setattr(Supervised, "learn", count)
        patch.setattr(rule, "stop_requested", lambda: len(steps) >= stop_after)
        with pytest.raises(KeyboardInterrupt):
            make_loop(folder, tmp_path / "b", first, **options).run(resume=False)
    torch.rand(17)  # another process would have another random state
    resumed = make_loop(folder, tmp_path / "b", first, **options)
    outcome = resumed.run(resume=True)
    assert same(state(resumed.model), state(undisturbed.model))
    assert same(last_tensors(tmp_path / "b"), last_tensors(tmp_path / "a"))
    assert [row["epoch"] for row in outcome.history] == [0, 1, 2, 3]


def test_stopped_while_the_next_size_is_cached_it_goes_on_there(stripes, tmp_path, monkeypatch):
    options = {"epochs": 3, "scales": (0.5, 0.75, 1.0), "side": 96}
    undisturbed = make_loop(stripes, tmp_path / "a", 4, **options)
    undisturbed.run(resume=False)
    monkeypatch.setenv("SURGERY_CACHE", str(tmp_path / "other"))
    filled = []
    fill = Feed.fill

    def stop(self, progress):
        filled.append(self.scale)
        if self.scale == 1 and not torch.is_inference_mode_enabled():
            raise KeyboardInterrupt
        fill(self, progress)

    with monkeypatch.context() as patch:
        patch.setattr(Feed, "fill", stop)
        with pytest.raises(KeyboardInterrupt):
            make_loop(stripes, tmp_path / "b", 4, **options).run(resume=False)
    assert filled == [0.5, 0.75, 1.0]
    resumed = make_loop(stripes, tmp_path / "b", 4, **options)
    resumed.run(resume=True)
    assert same(state(resumed.model), state(undisturbed.model))
    assert same(last_tensors(tmp_path / "b"), last_tensors(tmp_path / "a"))


def test_two_processes_share_each_size(stripes, tmp_path):
    loop = make_loop(stripes, tmp_path / "run", 0, side=96)
    whole = [batch.inputs["images"] for batch in loop.open_feed(0, 0.5).epoch(1, 6)]
    parts = []
    for rank in range(2):
        mine = loop.open_feed(0, 0.5)
        mine.rank, mine.ranks = rank, 2
        parts.append([batch.inputs["images"] for batch in mine.epoch(1, 6)])
    for together, one, other in zip(whole, *parts, strict=True):
        assert together.shape[1:3] == (64, 64)
        assert torch.equal(together[0::2], one)
        assert torch.equal(together[1::2], other)


@pytest.mark.parametrize(
    ("backbone", "side", "share", "said"),
    [
        ("vit_tiny_patch16_224", 224, 0.5, "takes images of 224×224 only"),
        ("test_efficientnet", 32, 0.5, "inputs of 32×32 cannot be made smaller"),
        ("test_efficientnet", 96, 0.95, "inputs of 96×96 cannot be made smaller"),
    ],
)
def test_where_there_is_no_smaller_input_it_is_refused(backbone, side, share, said):
    fixed = 224 if backbone.startswith("vit") else None
    spec = InputSpec("crop", side, side)
    config = FinetuneConfig("d", "n", backbone=backbone, resize_from=share)
    with pytest.raises(ConfigError, match=f"--resize-from {share}: .*{said}"):
        check_growth(config, spec, fixed)
    check_growth(replace(config, resize_from=1.0), spec, fixed)
    check_growth(config, InputSpec("native"))


def test_the_plan_says_the_sizes():
    phase = Phase("all", 0, 30, 1e-3, 1e-3, None, (0.5, 0.75, 1.0))
    found = describe_growth(phase, InputSpec("crop", 224, 224))
    assert found == "; 128×128, from epoch 11 on 160×160, from epoch 21 on 224×224"
    found = describe_growth(phase, InputSpec("crop", 96, 96))
    assert found == "; 64×64, from epoch 21 on 96×96"
    assert describe_growth(phase, InputSpec("native")) == (
        "; 0.5 of the images' own size, from epoch 11 on 0.75 of the images' own size, "
        "from epoch 21 on the images' own size"
    )
    assert describe_growth(replace(phase, scales=(1.0,)), InputSpec("native")) == ""
