"""Modules, lines, basins and criticality in the space of weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import cohen_kappa_score
from tiny_versions import draw_boxes, draw_stripes, move, sample_of, tiny_facts
from torch import nn

from surgery.artifact.errors import ConfigError
from surgery.artifact.manifest import OutputSpec
from surgery.nets.assemble import Model, build_model
from surgery.nets.weights import LoadedWeights
from surgery.study.basin import probe_basin, reach_rim
from surgery.study.criticality import Prefixes, find_criticality, set_bound, trained_modules
from surgery.study.line import borrowed, find_barrier, reestimate, walk_line
from surgery.study.measure import find_right, measure
from surgery.study.mistakes import compare_mistakes
from surgery.study.modules import copy_state, distance, first_difference, list_modules, mix_states
from surgery.study.sample import hold


def quiet(done: int, total: int) -> None:
    """Nobody looks on."""


def net(backbone: str = "test_efficientnet", head: str = "avg") -> Model:
    return build_model(backbone, head, "classify", 2, None, 0.0, LoadedWeights(None, {}), 0).eval()


def fail_halfway(model: Model, state: dict) -> None:
    """Load weights, then some that do not fit."""
    model.load_state_dict(state)
    model.load_state_dict({})


def two_states(model: Model, scale: float = 0.3, first: int = 0) -> tuple[dict, dict]:
    start = copy_state(model)
    move(model, scale, first)
    moved = copy_state(model)
    model.load_state_dict(start)
    return start, moved


@pytest.fixture
def stripes(tmp_path: Path) -> Path:
    return draw_stripes(tmp_path / "stripes")


def test_vgg_has_a_module_for_each_convolution_and_the_head() -> None:
    modules = list_modules(net("vgg16"))
    assert len(modules) == 14
    assert modules[-1].name == "head"
    assert [module.stage for module in modules] == sorted(module.stage for module in modules)


def test_a_batch_norm_joins_its_convolution_and_a_block_is_whole() -> None:
    names = [module.name for module in list_modules(net("tf_efficientnet_lite0"))]
    assert names[:3] == ["conv_stem", "blocks.0.0", "blocks.1.0"]
    assert len(names) == 1 + 16 + 1 + 1
    stem = list_modules(net("tf_efficientnet_lite0"))[0]
    assert any("bn1.running_mean" in key for key in stem.keys)
    assert not any("running" in key for key in stem.parameters)


@pytest.mark.parametrize("backbone", ["test_efficientnet", "test_resnet", "vgg16"])
def test_modules_cover_all_weights_once(backbone: str) -> None:
    model = net(backbone)
    keys = [key for module in list_modules(model) for key in module.keys]
    assert sorted(keys) == sorted(model.state_dict())


def test_the_distance_is_the_root_of_the_sum_of_squares() -> None:
    first = {"a": torch.zeros(2, 2), "b": torch.zeros(1), "c": torch.zeros(1)}
    second = {"a": torch.full((2, 2), 1.5), "b": torch.tensor([4.0]), "c": torch.tensor([9.0])}
    assert distance(first, second, ("a", "b")) == 5.0
    assert distance(first, first, ("a", "b", "c")) == 0.0


def test_the_ends_of_a_mixture_are_the_models_bit_for_bit() -> None:
    model = net()
    start, moved = two_states(model)
    for weights, wanted in (([1.0, 0.0], start), ([0.0, 1.0], moved)):
        mixed = mix_states([start, moved], weights)
        assert all(mixed[key].equal(wanted[key]) for key in wanted)


def test_the_first_difference_is_found() -> None:
    model = net()
    stages = len(model.backbone.stages)
    for first in (0, 2, stages):
        start, moved = two_states(model, first=first)
        assert first_difference(start, moved, model) == first
    assert first_difference(start, start, model) == stages


@pytest.mark.parametrize("kind", ["stripes", "boxes"])
def test_a_line_with_a_prefix_is_the_naive_one_and_ends_at_the_models(tmp_path: Path, kind: str) -> None:
    data = (draw_stripes if kind == "stripes" else draw_boxes)(tmp_path / kind)
    model, _ = tiny_facts(data, "tiny", 5)
    start, moved = two_states(model, first=2)
    sample = sample_of(data, model)
    line = walk_line(model, start, moved, sample, quiet, points=5)
    assert line.cut == 2
    for t, loss, error in zip(line.places, line.losses, line.errors, strict=True):
        model.load_state_dict(mix_states([start, moved], [1 - t, t]))
        whole = measure(model, hold(model, sample, 0))
        assert (loss, error) == pytest.approx((whole.loss, whole.error), abs=1e-6)


def test_the_loss_is_that_of_the_models_own_answers(stripes: Path) -> None:
    model, _ = tiny_facts(stripes, "tiny", 5)
    move(model, 0.3)
    sample = sample_of(stripes, model)
    batch = sample.batches[0]
    with torch.inference_mode():
        logits, _ = model(batch.inputs["images"])
    found = measure(model, hold(model, sample, 3))
    assert found.loss == pytest.approx(float(nn.functional.cross_entropy(logits, batch.targets)), abs=1e-6)
    assert found.right.tolist() == (logits.argmax(1) == batch.targets).tolist()


def test_the_loss_of_masks_is_the_mean_over_all_pixels_that_count(tmp_path: Path) -> None:
    """However few of them a batch has: here one image is unlabelled but for a corner."""
    data = draw_boxes(tmp_path / "boxes")
    model, _ = tiny_facts(data, "tiny", 5)
    sample = sample_of(data, model, batch_size=1)
    first, *others = sample.batches
    targets = torch.full_like(first.targets, 255)
    targets[:, :4, :4] = first.targets[:, :4, :4]
    sample = replace(sample, batches=(replace(first, targets=targets), *others))
    with torch.inference_mode():
        total = sum(
            float(
                nn.functional.cross_entropy(
                    model(batch.inputs["images"])[0], batch.targets, ignore_index=255, reduction="sum"
                )
            )
            for batch in sample.batches
        )
    pixels = sum(int((batch.targets != 255).sum()) for batch in sample.batches)
    found = measure(model, hold(model, sample, 0))
    assert len(found.right) == pixels == 16 + 3 * 40 * 48
    assert found.loss == pytest.approx(total / pixels, rel=1e-5)


def test_a_line_without_a_finite_loss_has_no_barrier(stripes: Path) -> None:
    """The largest of numbers among which one is none is not that one."""
    model, _ = tiny_facts(stripes, "tiny", 5)
    start, moved = two_states(model)
    key = next(key for key in start if key.endswith("running_var"))
    start[key], moved[key] = torch.full_like(start[key], 1.0), torch.full_like(start[key], -3.0)
    with pytest.raises(ConfigError, match=r"no finite number 0\.5 of the way"):
        walk_line(model, start, moved, sample_of(stripes, model), quiet, 3)


def test_a_measurement_leaves_the_model_as_it_was(stripes: Path) -> None:
    model, _ = tiny_facts(stripes, "tiny", 5)
    start, moved = two_states(model)
    sample = sample_of(stripes, model)
    walk_line(model, start, moved, sample, quiet, 3, sample)
    probe_basin(model, [start, moved], sample, 0, quiet, points=1)
    assert all(value.equal(start[key]) for key, value in model.state_dict().items())
    with pytest.raises(RuntimeError, match="Error"), borrowed(model):
        fail_halfway(model, moved)
    assert all(value.equal(start[key]) for key, value in model.state_dict().items())


def test_the_barrier_is_the_height_above_the_ends() -> None:
    places = (0.0, 0.25, 0.5, 0.75, 1.0)
    assert find_barrier(places, tuple(t**2 for t in places)) == 0.0  # a convex loss has none
    assert find_barrier(places, (1.0, 1.5, 3.5, 2.5, 3.0)) == 1.5
    assert find_barrier(places, (1.0, 1.0, 1.0, 1.0, 1.0)) == 0.0


def test_logistic_regression_has_no_barrier(stripes: Path) -> None:
    """The head alone differs: its loss is convex in its weights."""
    model, _ = tiny_facts(stripes, "tiny", 5)
    stages = len(model.backbone.stages)
    start, moved = two_states(model, scale=300.0, first=stages)
    line = walk_line(model, start, moved, sample_of(stripes, model), quiet)
    assert max(line.losses) - min(line.losses) > 0.1
    assert line.barrier == pytest.approx(0, abs=1e-6)


def test_batch_norm_is_measured_anew_behind_the_first_difference(stripes: Path) -> None:
    model, _ = tiny_facts(stripes, "tiny", 5)
    sample = sample_of(stripes, model, "train")
    held = hold(model, sample, 0)
    assert reestimate(model, held) > 0
    before = copy_state(model)
    norm = next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    seen = []
    handle = norm.register_forward_hook(lambda _, inputs, output: seen.append(inputs[0]))
    measure(model, held)
    handle.remove()
    mean = torch.cat(seen).mean((0, 2, 3))
    assert torch.allclose(norm.running_mean, mean, atol=1e-4)
    stages = len(model.backbone.stages)
    assert reestimate(model, held, first=stages) == 0
    assert all(value.equal(before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("seed", range(5))
def test_kappa_is_that_of_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.random(40) < 0.7, rng.random(40) < 0.6
    found = compare_mistakes(first, second, "images")
    assert found.kappa == pytest.approx(cohen_kappa_score(first, second))
    assert found.neither + found.first + found.second + found.both == 40
    assert (found.both, found.first) == (int((~first & ~second).sum()), int((~first & second).sum()))


def test_two_that_never_err_or_always_agree() -> None:
    right = np.ones(5, bool)
    assert compare_mistakes(right, right, "images").kappa == 1.0
    assert compare_mistakes(~right, ~right, "images").kappa == 1.0
    some = np.array([True, True, False, True, True])
    assert compare_mistakes(right, some, "images").kappa == 0.0
    assert compare_mistakes(some, some, "images").kappa == 1.0


def test_the_rim_is_where_a_share_becomes_none() -> None:
    rim = reach_rim(np.array([0.5, 0.3, 0.2]), np.array([0.4, 0.2, 0.4]))
    np.testing.assert_allclose(rim, [0.2, 0.0, 0.8])
    np.testing.assert_allclose(reach_rim(np.array([0.5, 0.5]), np.array([0.6, 0.4])), [1.0, 0.0])


def test_a_basin_of_one_model_has_no_inside(stripes: Path) -> None:
    model, _ = tiny_facts(stripes, "tiny", 5)
    state = copy_state(model)
    with pytest.raises(ConfigError, match="no inside"):
        probe_basin(model, [state, state], sample_of(stripes, model), 0, quiet)


def test_a_basin_is_seeded_and_flat_where_models_are_near(stripes: Path) -> None:
    model, _ = tiny_facts(stripes, "tiny", 5)
    start, near = two_states(model, scale=1e-4)
    _, far = two_states(model, scale=1.0)
    sample = sample_of(stripes, model)
    flat = probe_basin(model, [start, near], sample, 0, quiet, 4)
    steep = probe_basin(model, [start, far], sample, 0, quiet, 4)
    assert flat.spread < steep.spread
    assert flat == probe_basin(model, [start, near], sample, 0, quiet, 4)
    assert flat != probe_basin(model, [start, near], sample, 1, quiet, 4)


def test_a_module_that_never_moved_is_not_critical_and_rewinding_restores_the_model(stripes: Path) -> None:
    model, _ = tiny_facts(stripes, "tiny", 5)
    start, final = two_states(model, scale=0.5, first=2)
    model.load_state_dict(final)
    sample = sample_of(stripes, model, "train")
    bound = set_bound(model, final, sample, 0.1)
    prefixes = Prefixes(model, final, sample)
    for module in trained_modules(model):
        found = find_criticality(model, module, start, final, prefixes, bound, 0, draws=1)
        assert (found.distance == 0) == (module.stage < 2)
        if module.stage < 2:
            assert (found.criticality, found.rewound_loss) == (0.0, bound.loss)
        assert all(value.equal(final[key]) for key, value in model.state_dict().items())


def test_a_rewound_module_is_measured_with_all_others_as_they_ended(stripes: Path) -> None:
    model, _ = tiny_facts(stripes, "tiny", 5)
    start, final = two_states(model, scale=0.5)
    sample = sample_of(stripes, model, "train")
    bound = set_bound(model, final, sample, 0.1)
    module = trained_modules(model)[3]
    found = find_criticality(model, module, start, final, Prefixes(model, final, sample), bound, 0, draws=1)
    model.load_state_dict(final | {key: start[key] for key in module.keys})
    assert found.rewound_loss == pytest.approx(measure(model, hold(model, sample, 0)).loss, abs=1e-6)


def test_the_measure_is_the_smallest_over_the_grid(stripes: Path) -> None:
    """Against every place and every noise, tried one by one."""
    model, _ = tiny_facts(stripes, "tiny", 5)
    start, final = two_states(model, scale=2.0, first=len(model.backbone.stages))
    final["head.linear.weight"] = start["head.linear.weight"] * 200
    sample = sample_of(stripes, model, "train")
    bound = set_bound(model, final, sample, 0.05)
    module = trained_modules(model)[-1]
    alphas, sigmas = (0.0, 0.5, 1.0), (1e-3, 1e-2, 1e-1, 1.0)
    prefixes = Prefixes(model, final, sample)
    found = find_criticality(model, module, start, final, prefixes, bound, 0, alphas, sigmas, 1)
    moved = distance(start, final, module.parameters)

    def one(alpha: float, sigma: float) -> float:
        alone = find_criticality(model, module, start, final, prefixes, bound, 0, (alpha,), (sigma,), 1)
        return np.inf if alone.at_least else (alpha * moved / sigma) ** 2

    every = {(alpha, sigma): one(alpha, sigma) for alpha in alphas for sigma in sigmas}
    assert found.criticality == pytest.approx(min(every.values()))
    assert (found.alpha, found.sigma) in [k for k, v in every.items() if v == min(every.values())]


def test_outside_a_basin_no_variance_falls_below_zero(stripes: Path) -> None:
    """One model's batch norm has a hundred times the other's variance: drawn further it would be negative."""
    model, _ = tiny_facts(stripes, "tiny", 5)
    start, moved = two_states(model)
    moved |= {key: 100 * value for key, value in moved.items() if key.endswith("running_var")}
    for seed in range(3):
        found = probe_basin(model, [start, moved], sample_of(stripes, model), seed, quiet, 2)
        assert np.isfinite([found.loss, found.rim, found.outside]).all()


def test_a_class_of_index_255_is_judged():
    many = OutputSpec("softmax", tuple(f"c{i}" for i in range(257)))
    logits = torch.zeros(2, 257)
    logits[0, 255] = 1
    assert find_right(logits, torch.tensor([255, 255]), many).tolist() == [True, False]
