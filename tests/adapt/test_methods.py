"""The methods: what each step moves, and known answers of what they minimise."""

from __future__ import annotations

import dataclasses
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_domains import make_domains, make_loop, methods, moved, state

from surgery.adapt import game as game_module
from surgery.adapt.critic import build_critic, reverse_gradient, tell_apart
from surgery.adapt.game import Game
from surgery.adapt.methods import METHODS
from surgery.adapt.methods.cdan import LARGEST, Conditioned
from surgery.adapt.methods.coral import coral, covariance
from surgery.adapt.methods.mmd import mmd
from surgery.adapt.methods.output import build_judge
from surgery.adapt.seen import WHOLE, entropy, probabilities, to_rows
from surgery.artifact.errors import ConfigError
from surgery.artifact.manifest import OutputSpec
from surgery.config import METHODS as NAMES
from surgery.config import AdaptConfig
from surgery.data.table import Item
from surgery.recipes import adapting
from surgery.recipes.domains import plan
from surgery.recipes.variant import what_learnt
from surgery.train.device import make_accelerator
from surgery.train.reporting import Reporter
from surgery.train.rule import Update
from surgery.train.strategies import Phase


def test_the_words_of_the_config_are_the_methods():
    assert tuple(METHODS) == NAMES


def test_a_reversed_gradient_is_the_gradient_times_minus_the_strength():
    x = torch.tensor([1.0, -2.0], requires_grad=True)
    out = reverse_gradient(x, 0.3)
    assert torch.equal(out, x)
    (out * torch.tensor([5.0, 7.0])).sum().backward()
    assert x.grad.tolist() == pytest.approx([-1.5, -2.1])


def test_a_domain_classifier_that_knows_nothing():
    told = tell_apart(torch.zeros(3, 1), torch.zeros(5, 1))
    assert told.loss.item() == pytest.approx(math.log(2))
    assert told.accuracy == 0.5


def test_each_domain_counts_one_half_and_swapped_labels_turn_the_loss_around():
    source, target = torch.full((9, 1), -2.0), torch.full((1, 1), 1.0)
    told = tell_apart(source, target)
    right, wrong = math.log1p(math.exp(-2)), math.log1p(math.exp(-1))
    assert told.loss.item() == pytest.approx((right + wrong) / 2)
    assert told.accuracy == 1.0
    swapped = tell_apart(source, target, swapped=True)
    assert swapped.loss.item() == pytest.approx((right + 2 + wrong + 1) / 2)
    assert swapped.accuracy == 1.0


def test_rows_of_no_weight_do_not_count():
    source = torch.tensor([[-3.0], [100.0]])
    weights = (torch.tensor([[1.0], [0.0]]), torch.ones(2, 1))
    told = tell_apart(source, torch.full((2, 1), 3.0), weights=weights)
    assert told.loss.item() == pytest.approx(math.log1p(math.exp(-3)))


def test_coral_is_the_distance_of_covariances():
    rng = np.random.default_rng(0)
    one, other = (rng.normal(size=(n, 3)).astype(np.float32) * s for n, s in ((7, 1), (9, 2)))
    expected = np.square(np.cov(one.T) - np.cov(other.T)).sum() / (4 * 9)
    assert coral(torch.from_numpy(one), torch.from_numpy(other)).item() == pytest.approx(expected, rel=1e-5)
    assert coral(torch.from_numpy(one), torch.from_numpy(one + 5)).item() == pytest.approx(0, abs=1e-6)
    assert torch.equal(covariance(torch.ones(1, 3)), torch.zeros(3, 3))


def test_mmd_of_two_points_has_a_known_value():
    a, b = torch.zeros(1, 2), torch.tensor([[2.0, 0.0]])
    # The squared distances are 0, 4, 4, 0, so their mean is 2.
    between = np.mean([math.exp(-4 / (2 * factor)) for factor in (0.25, 0.5, 1, 2, 4)])
    assert mmd(a, b).item() == pytest.approx(2 - 2 * between)


def test_mmd_is_zero_for_the_same_rows_and_grows_with_a_shift():
    torch.manual_seed(0)
    rows = torch.randn(40, 4)
    assert mmd(rows, rows).item() == pytest.approx(0, abs=1e-6)
    near, far = (mmd(rows, torch.randn(40, 4) + shift).item() for shift in (0.0, 2.0))
    assert 0 <= near < far / 5


@pytest.mark.parametrize(("width", "whole"), [(10, True), (LARGEST, False)])
def test_a_conditioned_classifier_takes_the_product_whole_or_projected(width, whole):
    torch.manual_seed(0)
    critic = Conditioned(width, 3)
    assert critic.whole == whole
    rows, shares = torch.randn(4, width), torch.eye(3)[[0, 0, 1, 2]]
    out = critic(rows, shares)
    assert out.shape == (4, 1)
    assert not torch.allclose(out[0], critic(rows, shares[[1, 2, 3, 0]])[1])  # the answer matters
    assert {key.split(".")[0] for key, _ in critic.named_parameters()} == {"critic"}


def test_a_judge_of_masks_takes_any_size():
    assert build_judge(2)(torch.rand(2, 2, 40, 48)).shape == (2, 1, 4, 4)
    assert build_judge(5)(torch.rand(1, 5, 9, 7)).shape[:2] == (1, 1)


def test_probabilities_add_up_to_one():
    labels = OutputSpec("softmax", ("a", "b", "c"))
    masks = OutputSpec("sigmoid", ("rest", "car"), (0, 1), "rest")
    assert probabilities(torch.randn(4, 3), labels).sum(1).tolist() == pytest.approx([1] * 4)
    two = probabilities(torch.zeros(1, 1, 2, 2), masks)
    assert two.shape == (1, 2, 2, 2)
    assert torch.equal(two, torch.full((1, 2, 2, 2), 0.5))
    assert entropy(two).flatten().tolist() == pytest.approx([math.log(2)] * 4)
    assert entropy(torch.tensor([[1.0, 0.0]])).item() == 0


@pytest.mark.parametrize(
    ("shape", "masks", "rows"),
    [
        ((2, 3, 4, 4), False, (2, 48)),
        ((2, WHOLE, 1, 1), False, (2, WHOLE)),
        ((2, WHOLE, 2, 1), False, (2, WHOLE)),
        ((2, 3, 4, 5), True, (40, 3)),
    ],
)
def test_rows_have_the_length_of_the_root_of_their_width(shape, masks, rows):
    found = to_rows(torch.rand(shape) * 300, masks)
    assert found.shape == rows
    assert found.norm(dim=1).tolist() == pytest.approx([rows[1] ** 0.5] * rows[0], rel=1e-4)


def test_rows_of_a_mask_are_its_positions():
    maps = torch.rand(2, 3, 4, 5)
    rows = to_rows(maps, masks=True).view(2, 4, 5, 3)
    unit = maps[1, :, 2, 3] / maps[1, :, 2, 3].norm()
    assert torch.allclose(rows[1, 2, 3], unit * 3**0.5, atol=1e-6)


class Watch:
    """Notes which parts of the model each descent of a step has moved."""

    def __init__(self, loop, monkeypatch):
        self.loop, self.steps, self.now = loop, [], []
        learn, descend = METHODS["dann-alternating"].learn, Update.descend
        model = loop.model

        def parts(before):
            changed = moved(before, model)
            return {
                "features" if key.startswith("backbone.") else key.split(".")[0]
                for key in changed
                if "num_batches" not in key
            }

        def note(update, loss):
            before = state(model)
            value = descend(update, loss)
            self.now.append(parts(before))
            return value

        def step(rule, batch, update):
            before, self.now = state(model), []
            game = Game(update, rule.output, rule.strength, rule.confidence)
            values = learn(game, batch)
            memory = {
                id(tensor): {k: v.clone() for k, v in held.items() if isinstance(v, torch.Tensor)}
                for tensor, held in update.optimizer.state.items()
            }
            self.steps.append((self.now, parts(before), memory))
            return values

        monkeypatch.setattr(Update, "descend", note)
        monkeypatch.setattr("surgery.adapt.rule.Adaptation.learn", step)


@pytest.mark.parametrize("task", ["classify", "segment"])
def test_after_an_alternating_step_exactly_the_right_weights_have_moved(task, tmp_path, monkeypatch):
    domains = make_domains(tmp_path, task)
    loop = make_loop(domains, "dann-alternating", tmp_path / "run", epochs=1, freeze_through="none")
    watch = Watch(loop, monkeypatch)
    loop.run(resume=False)
    assert watch.steps
    for inside, after, _ in watch.steps:
        first, second = inside
        assert first == {"features", "companion"}  # the head sees nothing of the domains
        assert second == {"features", "head", "companion"}
        assert after == {"features", "head", "companion"}  # both together, each by its own step
    # The critic moved by the first descent alone: its optimizer has counted one step for each batch,
    # and so has that of the features, whose first descent was taken back.
    steps = {int(held["step"]) for held in watch.steps[-1][2].values()}
    assert steps == {len(watch.steps)}


def test_what_an_alternating_step_puts_back_is_put_back_whole(tmp_path, monkeypatch):
    domains = make_domains(tmp_path, "classify")
    loop = make_loop(domains, "dann-alternating", tmp_path / "run", epochs=1, freeze_through="none")
    seen = []
    restored = Game.restored

    def note(game, tensors):
        tensors = list(tensors)
        seen.append(
            (
                [tensor.detach().clone() for tensor in tensors],
                tensors,
                len(game.update.optimizer.state),
            )
        )
        return restored(game, tensors)

    monkeypatch.setattr(game_module.Game, "restored", note)
    descend = Update.descend

    def check(update, loss):
        if len(seen) % 2 == 0 and seen:  # at the second descent the features are as before the first
            kept, tensors, _ = seen[-2]
            assert all(torch.equal(a, b) for a, b in zip(kept, tensors, strict=True))
        return descend(update, loss)

    monkeypatch.setattr(Update, "descend", check)
    loop.run(resume=False)
    assert len(seen) == 2 * len(loop.open_feed(0, 1.0).order(0, 4))
    kept, tensors, _ = seen[-1]  # the critic, put back after the last descent
    assert all(torch.equal(a, b) for a, b in zip(kept, tensors, strict=True))


@pytest.mark.parametrize("task", ["classify", "segment"])
def test_every_method_runs_and_leaves_no_companion(task, tmp_path):
    domains = make_domains(tmp_path, task)
    begun = state(domains.model)
    for name in methods(task):
        domains.model.load_state_dict(begun)
        loop = make_loop(domains, name, tmp_path / name)
        outcome = loop.run(resume=False)
        assert not any(key.startswith("companion") for key in domains.model.state_dict())
        assert [row["epoch"] for row in outcome.history] == list(range(2 if name == "adabn" else 3))
        for row in outcome.history:
            assert set(row["criteria"]) == {"information", "entropy", "density", "embedded", "source"}
            assert all(math.isfinite(value) for value in row["criteria"].values())
        assert name == "adabn" or outcome.history[1]["steps"]["trade"] > 0
        assert outcome.best_epoch > 0  # the parent is no variant of itself


@pytest.mark.parametrize("target", [10, 31])
def test_adabn_measures_all_of_the_target_and_moves_nothing_else(tmp_path, target):
    domains = make_domains(tmp_path, "classify", target=target)
    loop = make_loop(domains, "adabn", tmp_path / "run", batch_size=5)
    before = state(domains.model)
    norms = [m for m in domains.model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    loop.rule = type(loop.rule)(**{**vars(loop.rule), "choose_by": "source"})
    feed = loop.open_feed(0, 1.0)
    norm = next(m for m in domains.model.modules() if isinstance(m, torch.nn.BatchNorm2d))
    seen = []
    handle = norm.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0]) if norm.training else None
    )
    loop._restore_best = lambda progress: None  # look at what was measured, chosen or not
    loop.run(resume=False)
    handle.remove()
    changed = moved(before, domains.model)
    assert changed
    assert all("running_" in key or "num_batches" in key for key in changed)
    means = torch.stack([x.mean((0, 2, 3)) for x in seen]).mean(0)
    assert len(seen) == len(feed.order(0, 5))
    assert len(seen) == target // 5
    assert torch.allclose(norm.running_mean, means, atol=1e-5)
    assert [norm.momentum for norm in norms] == momenta  # whatever learns next has its own


def test_adabn_stops_where_it_is_asked_to(tmp_path, monkeypatch):
    loop = make_loop(make_domains(tmp_path, "classify"), "adabn", tmp_path / "run", batch_size=5)
    monkeypatch.setattr("surgery.train.rule.stop_requested", lambda: True)
    with pytest.raises(KeyboardInterrupt):
        loop.run(resume=False)
    assert "step-000001" in " ".join(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())


def test_labels_of_the_target_choose_nothing(tmp_path):
    domains = make_domains(tmp_path, "classify")
    begun = state(domains.model)
    kept = []
    for turned in (0, 1):
        domains.model.load_state_dict(begun)
        items = [
            Item(each.image, (each.image.name.startswith("standing") + turned) % 2, None, "val")
            for each in domains.target.of("train")
        ]
        labelled = dataclasses.replace(domains.source, items=tuple(items))
        told = dataclasses.replace(domains, labelled=(labelled, domains.targets))
        loop = make_loop(told, "coral", tmp_path / f"{turned}", epochs=5, choose_by="entropy", lr=3e-3)
        outcome = loop.run(resume=False)
        rows = outcome.history[1:]
        assert outcome.best_epoch == max(rows, key=lambda row: row["criteria"]["entropy"])["epoch"]
        kept.append(([row["target"]["accuracy"] for row in rows], outcome.best_epoch, state(loop.model)))
    (one, first, weights), (other, second, same) = kept
    assert one == pytest.approx([1 - share for share in other])
    assert (first, weights.keys()) == (second, same.keys())
    assert all(torch.equal(weights[key], same[key]) for key in weights)


@pytest.mark.parametrize("method", ["coral", "self-training"])
def test_one_image_of_a_size_is_no_batch_for_norms(tmp_path, method):
    domains = make_domains(tmp_path, "classify")
    domains.model.head.add_module("norm", torch.nn.BatchNorm1d(2))
    forward = domains.model.head.forward
    domains.model.head.forward = lambda *given: domains.model.head.norm(forward(*given))
    few = [each for each in domains.target.items if each.split == "val"]
    few = [*few, *[dataclasses.replace(each, split="train") for each in few[:5]]]
    domains = dataclasses.replace(domains, target=dataclasses.replace(domains.target, items=tuple(few)))
    for size in (4, 1):  # batches of 4 and of a last 1; then all of 1
        loop = make_loop(domains, method, tmp_path / f"{size}", epochs=1, batch_size=size)
        assert math.isfinite(loop.run(resume=False).history[1]["train_loss"])


def test_a_row_is_as_wide_on_whatever_device_the_model_is(tmp_path):
    domains = make_domains(tmp_path, "classify")
    tap = max(domains.model.head_stages)
    here = adapting._row_width(domains, tap)
    domains.model.to("meta")
    assert adapting._row_width(domains, tap) == here == domains.model.backbone.info[tap].channels


@pytest.mark.parametrize("task", ["classify", "segment"])
def test_half_precision_is_for_the_network_and_not_for_what_is_cached(task, tmp_path):
    domains = make_domains(tmp_path, task)
    config = AdaptConfig("tiny@1", ("t",), "tiny", epochs=1, batch_size=4, device="cpu", trackers=())
    chosen = plan(config, domains, "dann")
    assert chosen.first > 0
    accelerator, quiet = make_accelerator("cpu", "bf16"), Reporter(quiet=True)
    seen = adapting.look(config, domains, chosen, accelerator, quiet)
    (tmp_path / "run").mkdir()
    loop = adapting.build_adaptation(config, domains, chosen, accelerator, tmp_path / "run", quiet)
    outcome = loop.run(resume=False)
    assert outcome.precision == "bf16"
    assert seen.source.loss == pytest.approx(outcome.history[0]["val_loss"], rel=0.01)


def test_what_a_variants_parent_learnt_a_variant_of_it_learns(tmp_path):
    domains = make_domains(tmp_path, "classify")
    last = len(domains.model.backbone.info) - 1
    config = AdaptConfig("tiny@1", ("t",), "tiny")
    for phases, first in (([{"first": 99}], last), ([{"first": 2}], 2), ([], last)):
        domains.parent.strategy["phases"] = phases
        assert plan(config, domains, "dann").first == first
        assert plan(config, domains, "dann").phase.first == first
        assert plan(config, domains, "adabn").first == 0


def test_what_only_measures_hands_on_what_its_parent_learnt(tmp_path):
    domains = make_domains(tmp_path, "classify")
    phase = Phase("partial", 2, 3, 1e-3, 1e-4, None, (0.5, 1.0))
    domains.parent.strategy["phases"] = [json.loads(json.dumps(dataclasses.asdict(phase)))]
    stored = SimpleNamespace(manifest=domains.parent)
    config = AdaptConfig("tiny@1", ("t",), "tiny", epochs=4)
    for name, learnt in (("adabn", phase), ("dann", plan(config, domains, "dann").phase)):
        tried = SimpleNamespace(plan=plan(config, domains, name))
        assert what_learnt(tried, stored) == (learnt,)


def test_methods_say_where_they_cannot_be_used(tmp_path):
    domains = make_domains(tmp_path, "classify")
    with pytest.raises(ConfigError, match="output is for segment, not for classify"):
        make_loop(domains, "output", tmp_path / "run")
    for module in list(domains.model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.BatchNorm2d):
                setattr(module, name, torch.nn.Identity())
    with pytest.raises(ConfigError, match="measures batch norm, and test_efficientnet has none"):
        make_loop(domains, "adabn", tmp_path / "run")


def test_a_teacher_follows_slowly_and_labels_what_it_is_sure_of(tmp_path, monkeypatch):
    domains = make_domains(tmp_path, "classify")
    asked = []
    ask = Game.ask_teacher

    def note(game, batch):
        assert game.update.suffix.model.training
        logits = ask(game, batch)
        assert game.update.suffix.model.training
        assert not logits.requires_grad
        asked.append([item.image.name for item in batch.items])
        return logits

    monkeypatch.setattr(Game, "ask_teacher", note)
    for confidence, used in ((0.0, 1.0), (1.0, 0.0)):
        loop = make_loop(domains, "self-training", tmp_path / f"{confidence}", confidence=confidence)
        history = loop.run(resume=False).history
        assert history[1]["steps"]["used"] == pytest.approx(used, abs=1e-6)
    assert asked


def test_the_second_domain_counts_more_and_more(tmp_path, monkeypatch):
    domains = make_domains(tmp_path, "classify")
    trades = []
    learn = METHODS["dann"].learn
    monkeypatch.setattr(
        "surgery.adapt.rule.Adaptation.learn",
        lambda rule, batch, update: (
            trades.append((update.done, Game(update, rule.output, rule.strength, 0.9).trade)),
            learn(Game(update, rule.output, rule.strength, 0.9), batch),
        )[1],
    )
    make_loop(domains, "dann", tmp_path / "run", strength=0.5).run(resume=False)
    assert trades[0] == (0.0, 0.0)
    assert [trade for _, trade in trades] == pytest.approx(
        [0.5 * (2 / (1 + math.exp(-10 * done)) - 1) for done, _ in trades]
    )
    assert [done for done, _ in trades] == pytest.approx(np.arange(len(trades)) / len(trades))


def test_the_critic_is_the_papers():
    critic = build_critic(768)
    assert [tuple(p.shape) for p in critic.parameters()] == [(100, 768), (100,), (1, 100), (1,)]
