"""The config: all mistakes at once, and a recipe that comes back as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from surgery.artifact.errors import ConfigError
from surgery.config import (
    AdaptConfig,
    FinetuneConfig,
    build_config,
    from_dict,
    load_recipe,
    merge,
    parse_rate,
    parse_size,
    save_recipe,
    to_dict,
)
from surgery.data.pipeline import check_pipeline


def test_a_recipe_comes_back_as_it_was(tmp_path):
    config = FinetuneConfig(
        "d", "cars", classes=("car", "bus"), image_size=(480, 360), lr=1e-3, epochs=None, stages=("stage3",)
    )
    path = tmp_path / "recipe.yaml"
    save_recipe(config, path)
    assert from_dict(load_recipe(path)) == config


def test_every_mistake_is_reported_together():
    values = {
        "data": "d", "name": "n", "strategy": "frozn", "epochs": 0, "augment": "much",
        "keep_checkpoints": "few", "freeze_through": "stage2", "format": "coko",
    }  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        from_dict(values)
    for part in (
        "frozn",
        "nearest: frozen",
        "--epochs 0",
        "'much'",
        "'few'",
        "--freeze-through",
        "nearest: coco",
    ):
        assert part in caught.value.message


def test_unknown_missing_and_ill_typed_fields_are_named():
    with pytest.raises(ConfigError) as caught:
        from_dict({"data": "d", "epoch": 3, "lr": "fast", "train_bn": 1, "image_size": [3]}, "r.yaml")
    for part in ("'epoch' (nearest: epochs)", "lr is 'fast'", "'name' is missing", "train_bn", "image_size"):
        assert part in caught.value.message


@pytest.mark.parametrize(
    ("text", "size"), [("224", (224, 224)), ("480x360", (480, 360)), ("480X360", (480, 360)), ("4×3", (4, 3))]
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "x", "3x", "1x2x3", "-3", "2.5"])
def test_sizes_that_are_none(text):
    with pytest.raises(ConfigError, match="neither N nor WxH"):
        parse_size(text)


def test_a_recipe_holds_the_steps_of_a_pipeline(tmp_path):
    steps = ({"OneOf": {"transforms": [{"Blur": {"blur_limit": [3, 5]}}], "p": 0.5}}, {"HorizontalFlip": {}})
    config = FinetuneConfig("d", "n", augment="custom", pipeline=steps)
    save_recipe(config, tmp_path / "r.yaml")
    assert from_dict(load_recipe(tmp_path / "r.yaml")) == config
    assert to_dict(config)["pipeline"] == list(steps)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"augment": "hevy"}, "nearest: heavy"),
        ({"augment": "mine.txt"}, "nor a file ending in .yaml, .yml, .json"),
        ({"augment": "custom"}, "has no steps"),
        ({"augment": "light", "pipeline": [{"Blur": {}}]}, "pipeline goes with augment custom"),
        ({"augment": "a.yaml", "pipeline": [{"Blur": {}}]}, "pipeline goes with augment custom"),
        ({"augment": "custom", "pipeline": ["Blur"]}, "pipeline is"),
        ({"augment": "custom", "pipeline": "Blur"}, "pipeline is"),
    ],
)
def test_what_augment_may_be(values, said):
    with pytest.raises(ConfigError, match=said):
        from_dict({"data": "d", "name": "n"} | values)


@pytest.mark.parametrize(
    "augment", ["auto", "none", "light", "domain", "mine.yaml", "dir/MINE.YML", "x.json"]
)
def test_what_augment_is(augment):
    assert from_dict({"data": "d", "name": "n", "augment": augment}).augment == augment


def test_another_augmentation_wins_over_the_steps_of_a_recipe():
    recipe = {"augment": "custom", "pipeline": [{"Blur": {}}], "seed": 1}
    assert merge(recipe, {"seed": 2}) == recipe | {"seed": 2}
    assert merge(recipe, {"augment": "mine.yaml"}) == {"augment": "mine.yaml", "seed": 1}


def test_random_takes_no_pretrained_weights():
    with pytest.raises(ConfigError, match="starts from no weights"):
        FinetuneConfig("d", "n", strategy="random", weights="hub")


@pytest.mark.parametrize("text", ["- a\n", "a: [", "\x00"])
def test_a_recipe_that_is_no_mapping(tmp_path, text):
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"r\.yaml"):
        load_recipe(path)


def test_plain_values_hold_no_tuples():
    assert to_dict(FinetuneConfig("d", "n", classes=("a",)))["classes"] == ["a"]


def test_what_follows_from_another_value_is_worked_out_anew():
    recipe = {"backbone": "vgg16", "stages": ["stage5"], "strategy": "frozen", "lr": 1e-3, "seed": 4}
    assert merge(recipe, {"seed": 5}) == recipe | {"seed": 5}
    assert merge(recipe, {"backbone": "vgg16"}) == recipe
    assert "stages" not in merge(recipe, {"backbone": "resnet50"})
    assert merge(recipe, {"backbone": "resnet50", "stages": ["stage4"]})["stages"] == ["stage4"]
    assert "format" not in merge({"data": "a", "format": "csv"}, {"data": "b"})
    assert "lr" not in merge(recipe, {"strategy": "full"})


def test_a_rate_that_is_to_be_measured_wins_over_a_recipes_number():
    for rule in ({}, {"lr_rule": "given"}, {"lr_rule": "range"}):
        found = merge({"data": "d", "name": "n", "lr": 0.1, **rule}, parse_rate("auto"))
        assert (from_dict(found).lr, from_dict(found).lr_rule) == (None, "range")
    assert from_dict(merge({"data": "d", "name": "n", "lr": 0.1}, parse_rate("0.5"))).lr == 0.5


def test_a_recipe_without_data_keeps_its_size():
    recipe = {"image_size": [64, 64], "task": "classify"}
    assert merge(recipe, {"data": "d", "name": "n"}) == recipe | {"data": "d", "name": "n"}


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml")), ids=str)
def test_the_recipes_at_hand_are_accepted(path):
    values = load_recipe(path)
    if "methods" in values:  # of an adaptation
        values |= {"model": "m", "target": ["t"], "name": "n"}
        config = build_config(AdaptConfig, values, path.name, "")
    else:
        config = from_dict(merge(values, {"data": "d", "name": "n"}))
    command = path.read_text("utf-8").splitlines()
    assert any(line.endswith(f"--recipe recipes/{path.name}") for line in command if line.startswith("# "))
    if config.pipeline:
        check_pipeline(config.pipeline, path.name)


def test_an_adaptations_recipe_comes_back_and_its_mistakes_come_together(tmp_path):
    config = AdaptConfig("cars@1", ("dusk", "night"), "cars-dusk", methods=("dann", "coral"), strength=0.5)
    save_recipe(config, tmp_path / "recipe.yaml")
    values = load_recipe(tmp_path / "recipe.yaml")
    assert build_config(AdaptConfig, values, "recipe.yaml", "") == config
    wrong = values | {"methods": ["dan"], "choose_by": "luck", "target": [], "confidence": 2.0, "views": -1}
    with pytest.raises(ConfigError) as caught:
        build_config(AdaptConfig, wrong, "recipe.yaml", "")
    for part in ("'dan' is not one of", "--choose-by 'luck'", "--target", "--confidence 2.0", "--views -1"):
        assert part in caught.value.message


def test_an_adaptation_takes_what_the_command_says_over_its_recipe():
    recipe = {
        "model": "m", "target": ["t"], "name": "n", "augment": "custom", "pipeline": [{"Blur": {}}],
    }  # fmt: skip
    config = build_config(AdaptConfig, merge(recipe, {"augment": "none"}), "the command", "")
    assert (config.augment, config.pipeline) == ("none", None)


def test_a_teacher_is_an_average_of_something():
    with pytest.raises(ConfigError, match="--ema 0"):
        AdaptConfig("m", ("t",), "n", ema=0.0)
