"""The command that a recipe stands for."""

from __future__ import annotations

import dataclasses
import shlex
from typing import Any

from surgery.config import AdaptConfig, FinetuneConfig

RULES = ("lr_rule", "batch_rule")
"""Fields that say how another one was found, which the recipe holds."""
SPELLED = {"trackers": "--tracker", "methods": "--method", "tap": "--at"}
"""Options whose name is not that of their field."""


def command_line(recipe: dict[str, Any]) -> str:
    """Return the `surgery finetune …` or `surgery adapt …` command that gives the values of a recipe.

    What is as it would be without an option is left out. A recipe holds what the run worked out, so the
    command says more than the user had to.

    Args:
        recipe: Values of a recipe file.
    """
    adapts = "model" in recipe
    command, first = ("adapt", "model") if adapts else ("finetune", "data")
    if recipe.get("pipeline"):  # steps of the user's own, which no option holds
        return f"surgery {command} --recipe recipe.yaml"
    words = ["surgery", command, str(recipe[first])]
    for field in dataclasses.fields(AdaptConfig if adapts else FinetuneConfig):
        value = recipe.get(field.name, field.default)
        value = tuple(value) if isinstance(value, list) else value
        if field.name in (first, *RULES) or value == field.default:
            continue
        words.append(SPELLED.get(field.name, "--" + field.name.replace("_", "-")))
        if field.name == "image_size":
            words.append("x".join(map(str, value)))
        elif field.name == "target":
            words += map(str, value)
        elif isinstance(value, tuple):
            words.append(",".join(map(str, value)))
        elif value is not True:
            words.append(str(value))
    return shlex.join(words)
