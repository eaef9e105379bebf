"""The command that a recipe stands for."""

from __future__ import annotations

import dataclasses
import shlex
from typing import Any

from surgery.config import FinetuneConfig


def command_line(recipe: dict[str, Any]) -> str:
    """Return the `surgery finetune …` command that gives the values of a recipe.

    What is as it would be without an option is left out. A recipe holds what the run worked out, so the
    command says more than the user had to.

    Args:
        recipe: Values of a recipe file.
    """
    if recipe.get("pipeline"):  # steps of the user's own, which no option holds
        return "surgery finetune --recipe recipe.yaml"
    words = ["surgery", "finetune", str(recipe["data"]), "--name", str(recipe["name"])]
    for field in dataclasses.fields(FinetuneConfig):
        value = recipe.get(field.name, field.default)
        value = tuple(value) if isinstance(value, list) else value
        if field.name in ("data", "name", "lr_rule", "batch_rule") or value == field.default:
            continue
        words.append("--tracker" if field.name == "trackers" else "--" + field.name.replace("_", "-"))
        if field.name == "image_size":
            words.append("x".join(map(str, value)))
        elif isinstance(value, tuple):
            words.append(",".join(map(str, value)))
        elif value is not True:
            words.append(str(value))
    return shlex.join(words)
