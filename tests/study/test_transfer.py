"""The study of transfer: which layers are copied, which stay as they are, and what the curves say."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from surgery.artifact.errors import ConfigError
from surgery.study.fitting import Recipe, fit, make_network
from surgery.study.pictures import save_pictures
from surgery.study.transfer import (
    NEW_SEED,
    TREATMENTS,
    base_of,
    check_groups,
    compare_signs,
    conclude,
    copy_layers,
    draw_halves,
    forget_lost,
    list_bases,
    list_trainings,
    report,
    run_transfer,
    summarise,
    weights_of,
)

HALVES = (("blue", "red"), ("green", "yellow"))


def stage_tensors(model, k):
    return {key: value.clone() for key, value in model.backbone.stages[k].state_dict().items()}


def same(one, other):
    return all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("n", [1, 4, 7])
def test_the_first_n_layers_are_the_bases_and_no_other(n):
    base, model, fresh = (make_network("yosinski_small", 2, 0.0, None, seed) for seed in (0, 5, 5))
    for module in base.backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean += 1  # statistics are copied too
    copy_layers(model, base.state_dict(), n)
    for k in range(7):
        expected = base if k < n else fresh
        assert same(stage_tensors(model, k), stage_tensors(expected, k)), k
    assert same(model.head.state_dict(), fresh.head.state_dict())


@pytest.mark.parametrize(("treatment", "n"), [("AnB", 3), ("BnB", 7), ("random", 2)])
def test_frozen_layers_stay_bit_for_bit_and_the_others_learn(pictures, tmp_path, treatment, n):
    (training,) = (
        each for each in list_trainings(list_bases("", "yosinski_small", [HALVES], Recipe(2, 8)), (n,))
        if each.treatment == treatment and each.target == HALVES[0]
    )  # fmt: skip
    model = make_network("yosinski_small", 2, 0.0, None, 3)
    before = [stage_tensors(model, k) for k in range(7)]
    head = {key: value.clone() for key, value in model.head.state_dict().items()}
    fit(model, pictures.of(HALVES[0]), training.recipe, training.frozen, 0, tmp_path)
    assert [same(before[k], stage_tensors(model, k)) for k in range(7)] == [k < n for k in range(7)]
    assert not same(head, model.head.state_dict())


def test_plus_freezes_nothing_and_each_has_its_source():
    bases = list_bases("", "yosinski_small", [HALVES, HALVES[::-1]], Recipe(1))
    found = list_trainings(bases, (2, 5))
    assert len(found) == 2 * 2 * 2 * len(TREATMENTS)
    for each in found:
        assert each.frozen == (0 if "+" in each.treatment else each.n)
        other = next(half for half in HALVES if half != each.target)
        expected = {"B": each.target, "A": other, "r": ()}[each.treatment[0]]
        assert each.source == expected
        assert not each.source or base_of(each) in bases


def test_new_layers_do_not_start_as_those_of_the_base():
    base, other = (make_network("yosinski_small", 2, 0.0, None, seed) for seed in (0, NEW_SEED))
    assert not same(stage_tensors(base, 0), stage_tensors(other, 0))


def test_a_base_keeps_its_weights_and_is_trained_again_without_them(pictures, tmp_path):
    digest = save_pictures(pictures, tmp_path)
    bases = list_bases(digest, "yosinski_small", [HALVES], Recipe(2, 8))
    folder = tmp_path / "run"
    for base in bases:
        assert 0 <= run_transfer(base, folder)["accuracy"] <= 1
        for path in (folder / "checkpoints").iterdir():
            path.unlink()
    assert all(weights_of(base, tmp_path).exists() for base in bases)
    tuned = next(each for each in list_trainings(bases, (7,)) if each.treatment == "BnB")
    assert run_transfer(tuned, folder)["accuracy"] >= 0.5
    forget_lost(bases, tmp_path)  # no answer is there: nothing to forget


def test_lost_weights_make_the_answer_void(tmp_path):
    (base, *_) = list_bases("", "yosinski_small", [HALVES], Recipe(1))
    path = weights_of(base, tmp_path).with_suffix(".json")
    path.write_text('{"answer": {"accuracy": 1.0}}')
    weights_of(base, tmp_path).touch()
    forget_lost([base], tmp_path)
    assert path.exists()
    weights_of(base, tmp_path).unlink()
    forget_lost([base], tmp_path)
    assert not path.exists()


def made_up(drop=0.02, seeds=3):
    """Answers with known curves: base 0.6, BnB 0.58, AnB 0.58 − drop · n, AnB+ 0.62; seeds differ by 0.001."""
    layers = (1, 4, 7)
    bases = list_bases("", "yosinski_small", [HALVES] * seeds, Recipe(1))
    values = {"BnB": lambda n: 0.58, "BnB+": lambda n: 0.6, "AnB": lambda n: 0.58 - drop * n}
    values |= {"AnB+": lambda n: 0.62, "random": lambda n: 0.5}
    answers = {base: {"accuracy": 0.6 + base.seed / 1000} for base in bases}
    for each in list_trainings(bases, layers):
        answers[each] = {"accuracy": values[each.treatment](each.n) + each.seed / 1000}
    return summarise(answers, layers), answers


def test_the_drop_splits_into_its_two_parts():
    curves, answers = made_up()
    assert [each.mean for each in curves.adaptation] == pytest.approx([0.02] * 3)
    assert [each.mean for each in curves.specificity] == pytest.approx([0.02, 0.08, 0.14])
    assert [each.mean for each in curves.total] == pytest.approx([0.04, 0.10, 0.16])
    assert curves.falls.mean == pytest.approx(-0.02)
    assert curves.base.mean == pytest.approx(0.601)
    assert {row["paper"]: row["agrees"] for row in compare_signs(curves)} == {
        "AnB falls with n": "agrees",
        "BnB dips in the middle": "agrees",
        "AnB+ is at least base": "agrees",
    }
    result = report(curves, answers, "made up")
    assert len(result.sentences) == 2
    assert "Freeze no layer" in result.sentences[1]
    assert [row["n"] for row in result.rows] == [0, 1, 4, 7]


def test_layers_that_lose_nothing_are_general():
    curves, _ = made_up(drop=0.0)
    flat = curves.__class__(**{**vars(curves), "total": [type(curves.base)(0.0, 0.01, 3)] * 3})
    assert "Up to layer 7" in conclude(flat)[0]
    assert compare_signs(curves)[0]["agrees"] == "open"


def test_one_seed_tells_nothing():
    found, advice = conclude(made_up(drop=0.38, seeds=1)[0])
    assert "cannot be told" in found
    assert "Take more --seeds" in advice
    assert "safe" not in advice
    assert "helps or harms cannot be told" in advice


@pytest.mark.parametrize(
    ("mean", "half", "said", "start"),
    [
        (0.01, 0.02, "Up to layer 7", "a safe start"),
        (0.10, 0.20, "cannot be told", "helps or harms cannot be told"),
        (0.01, None, "cannot be told", "helps or harms cannot be told"),
        (0.10, 0.05, "lose accuracy", "no help here"),
    ],
)
def test_safe_is_what_was_seen_to_lose_little(mean, half, said, start):
    curves, _ = made_up()
    lost, gained = type(curves.base)(mean, half, 3), type(curves.base)(-mean, half, 3)
    found, advice = conclude(replace(curves, total=[lost] * 3, tuned=[gained] * 3))
    assert said in found
    assert start in advice
    assert ("Freeze up to layer 7" in advice) == (said == "Up to layer 7")


def test_halves_are_halves_and_follow_the_seed():
    classes = tuple("abcdefg")
    first, second = draw_halves(classes, 0)
    assert sorted(first + second) == sorted(classes)
    assert (len(first), len(second)) == (4, 3)
    assert draw_halves(classes, 0) == (first, second)
    assert len({draw_halves(classes, seed) for seed in range(8)}) > 1


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        ({"a": ["blue", "red"]}, "not two named groups"),
        ({"a": ["blue", "red"], "b": ["red", "green"]}, "'red' stands twice"),
        ({"a": ["blue", "red"], "b": ["pink", "grey"]}, "no class 'pink'\n.*no class 'grey'"),
        ({"a": ["blue", "red"], "b": "green"}, "b is not a list"),
    ],
)
def test_groups_that_do_not_do_are_refused_with_all_reasons(groups, said):
    with pytest.raises(ConfigError, match=said):
        check_groups(groups, ("blue", "green", "red", "yellow"), "groups.yaml")
