"""Where to cut: what is frozen, kept and new, and what is recommended from known numbers."""

from __future__ import annotations

import shlex
from collections import Counter

import numpy as np
import pytest
import torch

from surgery.artifact.errors import ConfigError
from surgery.cli import app
from surgery.config import from_dict, parse_size
from surgery.nets.assemble import build_model
from surgery.nets.weights import LoadedWeights
from surgery.study import cut as study
from surgery.study.cut import (
    CutTraining,
    Given,
    Option,
    build_cut,
    command,
    conclude,
    draw_judged,
    judge,
    list_options,
    list_trainings,
    recommend,
    report,
    run_cut,
    summarise,
)
from surgery.study.fitting import Fitted, Recipe
from surgery.study.pictures import save_pictures
from surgery.study.start import Start
from surgery.train.optimizers import make_optimizer
from surgery.train.strategies import Phase, plan_phases

NETWORK = "yosinski_small"
HEAD = Option("head", 5, "stage5", 100, 9_000)
KEPT = Option("kept", 3, "stage3", 4_000, 9_000)
FULL = Option("kept", 0, "the image", 9_000, 9_000)
FRESH = Option("fresh", 4, "stage4", 50, 9_000)
VGG = Given("vgg16", "imagenet", 128)


def weights():
    model = build_model(NETWORK, "avg", "classify", 4, None, 0.0, LoadedWeights(None, {}), 77)
    return LoadedWeights(model.backbone.timm_state(), {})


def best_of(**values):
    options = {"head": HEAD, "kept": KEPT, "full": FULL, "fresh": FRESH}
    return judge([options[name] for name in values], {options[n]: v for n, v in values.items()}, 0.25)


def test_the_cheaper_one_is_recommended_where_none_can_be_told_apart():
    judged = best_of(head=[0.92, 0.94, 0.93], kept=[0.93, 0.93, 0.94], full=[0.95, 0.93, 0.94])
    assert judged[0].option is FULL
    assert recommend(judged).option is HEAD
    found, advice = conclude(judged, VGG)
    assert "cannot be told from it" in found
    assert "100 parameters instead of 9,000" in found
    assert "--strategy frozen --stages stage5" in advice


def test_the_dear_one_is_recommended_where_it_is_better():
    judged = best_of(head=[0.82, 0.84, 0.83], kept=[0.83, 0.82, 0.84], full=[0.95, 0.96, 0.95])
    assert recommend(judged).option is FULL
    assert "--strategy full" in conclude(judged, VGG)[1]


def test_far_behind_is_not_equal_however_wide_the_interval():
    judged = best_of(head=[0.5, 0.95, 0.7], full=[0.95, 0.9, 0.93])
    assert recommend(judged).option is FULL


def test_differences_are_paired_by_seed():
    judged = best_of(head=[0.50, 0.70, 0.90], full=[0.53, 0.73, 0.93])
    behind = next(each.behind for each in judged if each.option is HEAD)
    assert behind.mean == pytest.approx(0.03)
    assert behind.verdict == "above"
    assert recommend(judged).option is FULL


@pytest.mark.parametrize("option", [HEAD, KEPT, FULL, Option("fresh", 0, "the image", 9_000, 9_000)])
@pytest.mark.parametrize("weights", ["imagenet", "cars@3", "/tmp/my weights.pth"])
def test_the_command_is_one_that_trains_this_cut(option, weights):
    words = shlex.split(command(option, Given("vgg16", weights, 96)))
    assert words[0] == "surgery"
    _, bound, _ = app.parse_args(words[1:], exit_on_error=False, print_error=False)
    values = {key: value for key, value in bound.arguments.items() if key != "image_size"}
    config = from_dict(values | {"image_size": list(parse_size(bound.arguments["image_size"]))})
    random = option.treatment == "fresh"
    assert (config.backbone, config.image_size) == ("vgg16", (96, 96))
    assert config.weights == ("imagenet" if random else weights)
    (phase,) = plan_phases(config, "classify", tuple(f"stage{k}" for k in range(1, 6)))
    assert phase.first == (5 if option.treatment == "head" else option.through)
    assert config.stages == (("stage5",) if option.treatment == "head" else ())
    assert (config.strategy == "random") == random


def test_what_has_no_command_says_so_and_names_the_next_that_has_one():
    judged = best_of(fresh=[0.95, 0.96, 0.95], head=[0.82, 0.84, 0.83], full=[0.94, 0.95, 0.94])
    assert recommend(judged).option is FRESH
    assert command(FRESH, VGG) is None
    advice = conclude(judged, VGG)[1]
    assert "finetune has no options for that" in advice
    assert advice.endswith(command(FULL, VGG))
    alone = best_of(fresh=[0.95, 0.96, 0.95])
    assert "surgery finetune" not in conclude(alone, VGG)[1]


def test_new_layers_learn_fast_and_pretrained_ones_below_them_slowly():
    model = build_model(NETWORK, "avg", "classify", 4, None, 0.0, weights(), 0)
    phase = Phase("study", 0, 1, 1.0, 0.05, None)
    rates = {
        id(parameter): group["lr"]
        for group in make_optimizer(model, phase, 0.0, new_from=3).param_groups
        for parameter in group["params"]
    }
    for k, stage in enumerate(model.backbone.stages):
        assert {rates[id(parameter)] for parameter in stage.parameters()} <= {1.0 if k >= 3 else 0.05}, k


@pytest.mark.parametrize(
    ("treatment", "first", "new_from"),
    [("head", 3, None), ("kept", 3, None), ("fresh", 3, 3), ("fresh+", 0, 3)],
)
def test_each_treatment_trains_from_its_stage_at_its_rates(
    pictures, tmp_path, monkeypatch, treatment, first, new_from
):
    seen = {}

    def see(model, pictures, recipe, first, *given, **named):
        seen.update(first=first, share=recipe.kept_share, **named)
        return Fitted([0.5], [], [])

    monkeypatch.setattr(study, "load_start", lambda *given: weights())
    monkeypatch.setattr(study, "fit", see)
    digest = save_pictures(pictures, tmp_path)
    run_cut(
        CutTraining(digest, NETWORK, Start("imagenet", ""), treatment, 3, Recipe(1, kept_share=0.05), 0),
        tmp_path / "a",
    )
    assert (seen["first"], seen["new_from"], seen["share"]) == (first, new_from, 0.05)


@pytest.mark.parametrize("treatment", ["head", "fresh", "kept", "fresh+"])
def test_up_to_the_cut_it_is_pretrained_and_above_as_the_treatment_says(treatment):
    held = weights()
    model = build_cut(CutTraining("", NETWORK, Start("", ""), treatment, 3, Recipe(1), 5), 4, held)
    new = build_model(NETWORK, "avg", "classify", 4, None, 0.0, LoadedWeights(None, {}), 5)
    assert len(model.backbone.stages) == (3 if treatment == "head" else 7)
    for k, stage in enumerate(model.backbone.stages):
        fresh = treatment.startswith("fresh") and k >= 3
        for key, value in stage.state_dict().items():
            wanted = new.backbone.stages[k].state_dict()[key] if fresh else held.state[key]
            assert torch.equal(value, wanted), (k, key)


def test_options_count_what_learns():
    options = list_options(NETWORK, weights(), 4, ("head", "fresh", "kept", "fresh+"), lowest=True)
    assert Counter(each.treatment for each in options) == {"head": 7, "fresh": 7, "kept": 7, "fresh+": 6}
    model = build_model(NETWORK, "avg", "classify", 4, None, 0.0, weights(), 0)
    whole = sum(p.numel() for p in model.parameters())
    full = next(each for each in options if each.treatment == "kept" and each.through == 0)
    assert (full.trained, full.size) == (whole, whole)
    head = next(each for each in options if each.treatment == "head" and each.through == 2)
    assert head.trained == (32 + 1) * 4
    assert {each.through for each in list_options(NETWORK, weights(), 4, ("kept",), False)} == {3, 4, 5, 6}
    with pytest.raises(ConfigError, match="--treat bald: there is head"):
        list_options(NETWORK, weights(), 4, ("bald",), False)


def test_a_fifth_of_train_is_judged_and_val_never(pictures):
    drawn = [draw_judged(pictures, seed) for seed in (0, 0, 1)]
    for each in drawn:
        assert np.bincount(each.judged.labels).tolist() == [2] * 4
        names = {*each.train.names, *each.judged.names}
        assert names == set(pictures.train.names)
        assert len(each.train) + len(each.judged) == len(names)
    assert drawn[0].judged.names == drawn[1].judged.names != drawn[2].judged.names


def test_a_study_runs_from_trainings_to_a_recommendation(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "load_start", lambda *given: weights())
    digest = save_pictures(pictures, tmp_path)
    options = list_options(NETWORK, weights(), 4, ("head", "kept"), False)[-4:]
    trainings = list_trainings(digest, NETWORK, Start("imagenet", ""), options, Recipe(2, 8), 2)
    assert [each.through for each in trainings] == [6, 6, 5, 5, 4, 4, 3, 3]  # the cheapest first
    answers = {each: run_cut(each, tmp_path / str(k)) for k, each in enumerate(trainings)}
    judged = summarise(options, answers)
    result = report(judged, Given(NETWORK, "imagenet", 32), "made up")
    assert sum(row[""] == "recommended" for row in result.rows) == 1
    assert result.values["recommended"]["command"].startswith("surgery finetune DATA --name NAME")
