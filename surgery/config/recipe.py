"""Options as words, as plain values and as YAML (`recipe.yaml`)."""

from __future__ import annotations

import dataclasses
import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin, get_type_hints

from surgery.artifact.errors import ConfigError, UserError
from surgery.config.adapt import AdaptConfig
from surgery.config.options import FinetuneConfig

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    C = TypeVar("C", bound=DataclassInstance)

DEPENDENTS = {
    "data": ("task", "format", "image_size"),
    "backbone": ("stages", "freeze_through"),
    "head": ("stages",),
    "strategy": ("freeze_through", "epochs", "lr", "backbone_lr_share", "batch_size", "classifiers", "folds"),
    "lr_rule": ("lr",),
    "augment": ("pipeline",),
}
"""Fields that a run works out from another one where the user leaves them open."""


def parse_rate(text: str) -> dict[str, Any]:
    """Return the fields that `--lr` stands for: a number, or `auto`.

    Raises:
        ConfigError: If it is neither.
    """
    if text == "auto":  # over a recipe's number too
        return {"lr": None, "lr_rule": "range"}
    try:
        return {"lr": float(text), "lr_rule": "given"}
    except ValueError:
        raise ConfigError(f"--lr {text!r} is neither a number nor auto", "For example 0.001.") from None


def parse_batch(text: str) -> dict[str, Any]:
    """Return the fields that `--batch-size` stands for: a number, or `auto`.

    Raises:
        ConfigError: If it is neither.
    """
    if text == "auto":  # over a recipe's number too: it may be another machine's
        return {"batch_size": None, "batch_rule": "auto"}
    if text.isdecimal():
        return {"batch_size": int(text), "batch_rule": "given"}
    raise ConfigError(f"--batch-size {text!r} is neither a number nor auto", "For example 32.")


def parse_size(text: str) -> tuple[int, int]:
    """Return (width, height) in pixels from `N` or `WxH`.

    Raises:
        ConfigError: If the text is neither.
    """
    parts = text.lower().replace("×", "x").split("x")
    if len(parts) in (1, 2) and all(part.strip().isdecimal() for part in parts):
        sides = [int(part) for part in parts]
        return sides[0], sides[-1]
    raise ConfigError(f"--image-size {text!r} is neither N nor WxH", "For example 224 or 480x360.")


def to_dict(config: FinetuneConfig | AdaptConfig) -> dict[str, Any]:
    """Return the config as plain values, in the order of its fields."""
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in dataclasses.asdict(config).items()
    }


def from_dict(values: dict[str, Any], where: str = "recipe") -> FinetuneConfig:
    """Return the config of a fine-tuning from plain values; all mistakes are reported at once.

    Raises:
        ConfigError: If a field is unknown, missing or of the wrong type.
    """
    return build_config(
        FinetuneConfig, values, where, "A run needs DATA and --name NAME, or a recipe of a run."
    )


def build_config(kind: type[C], values: dict[str, Any], where: str, hint: str) -> C:
    """Return a config of any kind from plain values; all mistakes are reported at once.

    Args:
        kind: A dataclass whose fields without a default must be there.
        values: By field.
        where: Where they come from, for the message.
        hint: What to do about a mistake.

    Raises:
        ConfigError: If a field is unknown, missing or of the wrong type.
    """
    hints = get_type_hints(kind)
    problems: list[str] = []
    clean: dict[str, Any] = {}
    for key, value in values.items():
        if key not in hints:
            near = difflib.get_close_matches(key, hints, 1)
            guess = f" (nearest: {near[0]})" if near else ""
            problems.append(f"{where}: there is no field {key!r}{guess}")
            continue
        clean[key] = tuple(value) if isinstance(value, list) else value
        if not _fits(clean[key], hints[key]):
            problems.append(f"{where}: {key} is {value!r}, which is not {_spell(hints[key])}")
    for field in dataclasses.fields(kind):
        if field.default is dataclasses.MISSING and field.name not in values:
            problems.append(f"{where}: {field.name!r} is missing")
    if problems:
        raise ConfigError("\n".join(problems), hint)
    return kind(**clean)


def _fits(value: Any, hint: Any) -> bool:
    if get_origin(hint) is dict:
        return isinstance(value, dict)
    options = get_args(hint) if not _is_tuple(hint) else ()
    if options:
        return any(_fits(value, option) for option in options)
    if _is_tuple(hint):
        kinds = [kind for kind in get_args(hint) if kind is not Ellipsis]
        fixed = Ellipsis not in get_args(hint)
        if not isinstance(value, tuple) or (fixed and len(value) != len(kinds)):
            return False
        return all(_fits(item, kinds[0]) for item in value)
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _is_tuple(hint: Any) -> bool:
    return getattr(hint, "__origin__", None) is tuple


def _spell(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)


def merge(recipe: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe's values with other ones put over them.

    What the recipe's run had worked out from a value that is now another is worked out anew. A recipe that
    does not say the value was written by hand, and keeps what it says.
    """
    kept = dict(recipe)
    if recipe.get("strategy") == "random" and given.get("strategy", "random") != "random":
        kept.pop("weights", None)
    for key, dependents in DEPENDENTS.items():
        if key in given and key in recipe and given[key] != recipe[key]:
            for name in dependents:
                kept.pop(name, None)
    return kept | given


def save_recipe(config: FinetuneConfig | AdaptConfig, path: Path) -> None:
    """Write the config as YAML; its command with `--recipe FILE` repeats the run."""
    import yaml

    command = "adapt" if isinstance(config, AdaptConfig) else "finetune"
    text = yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)
    path.write_text(f"# surgery {command} --recipe THIS_FILE repeats the run\n" + text, "utf-8")


def load_recipe(path: Path) -> dict[str, Any]:
    """Return the values of a recipe file, unchecked (see `from_dict`).

    Raises:
        ConfigError: If the file is not a YAML mapping.
    """
    import yaml

    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}", "Give a recipe.yaml of a run.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {error}", "Give a recipe.yaml of a run.") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: not a mapping of fields", "Give a recipe.yaml of a run.")
    return values
