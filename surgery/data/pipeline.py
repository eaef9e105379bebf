"""A pipeline of the user's own: read from a file, and every mistake in it found at once.

Two forms are read: a list of `{TransformName: {argument: value}}`, and what albumentations writes
(`A.to_dict`, `A.save`). A file is data: a name can only be that of an albumentations transform.
"""

from __future__ import annotations

import difflib
import inspect
import json
import warnings
from pathlib import Path
from typing import Any

from surgery.artifact.errors import ConfigError
from surgery.data.augment import fill_in, load_albumentations, parameters
from surgery.data.presets import Step

_TENSORS = "the network scales and normalises by itself, and takes uint8"
_OTHERS = "it needs other images or texts, which a pipeline cannot hold"
REFUSED = {
    "Lambda": "it is code, which a file cannot hold",
    "ReplayCompose": "it gives a protocol beside the image; use Compose",
    "SelectiveChannelTransform": "it moves an image without its mask",
    **dict.fromkeys(("Normalize", "ToFloat", "FromFloat", "ToTensorV2", "ToTensor3D"), _TENSORS),
    **dict.fromkeys(("FDA", "HistogramMatching", "PixelDistributionAdaptation"), _OTHERS),
    **dict.fromkeys(("Mosaic", "OverlayElements", "TextImage"), _OTHERS),
}
"""Transforms that do not do here, and why."""
_BASES = {"BasicTransform", "BaseCompose", "ImageOnlyTransform", "DualTransform", "Transform3D"}
_IDLE: dict[str, Any] = {
    "bbox_params": None,
    "keypoint_params": None,
    "additional_targets": {},
    "is_check_shapes": True,
}
"""Arguments that albumentations writes of every `Compose`, at values that say nothing."""
_ANY_SIZE = (224, 224)
_HINT = "A pipeline is a list such as `- HorizontalFlip: {p: 0.5}`; docs/finetune.md shows one."


def read_pipeline(path: Path) -> list[Step]:
    """Return the steps of a YAML or JSON file.

    Raises:
        ConfigError: With all that is wrong with the file.
    """
    import yaml

    try:
        text = path.read_text("utf-8")
        values = json.loads(text) if path.suffix.lower() == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise ConfigError(f"--augment {path}: {error.strerror}", "Name a file, or a preset.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"--augment {path}: not plain {path.suffix[1:]}: {error}", _HINT) from error
    return check_pipeline(values, str(path))


def check_pipeline(values: Any, where: str) -> list[Step]:
    """Return the steps that plain values stand for, in one form.

    Args:
        values: A list of steps, or what albumentations writes.
        where: What to call it in messages.

    Raises:
        ConfigError: With all that is wrong.
    """
    try:
        entries = _unwrap(json.loads(json.dumps(values, allow_nan=False)))
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: holds more than names, numbers and lists: {error}", _HINT) from error
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"{where}: not a list of transforms", _HINT)
    problems: list[str] = []
    steps, _ = _check_steps(entries, f"{where}: step ", problems)
    if problems:
        raise ConfigError("\n".join(problems), _HINT)
    return steps


def _unwrap(values: Any) -> Any:
    """Return the steps of what albumentations writes: `{transform: {__class_fullname__: Compose, …}}`."""
    if isinstance(values, dict) and isinstance(values.get("transform"), dict):
        values = values["transform"]
    if not isinstance(values, dict) or "__class_fullname__" not in values:
        return values
    rest = dict(values)
    whole = str(rest.pop("__class_fullname__")).rpartition(".")[2] == "Compose" and rest.pop("p", 1) == 1
    inner = rest.pop("transforms", None)
    idle = all(key in _IDLE and value == _IDLE[key] for key, value in rest.items())
    return inner if whole and idle else [values]


def _check_steps(entries: list[Any], where: str, problems: list[str]) -> tuple[list[Step], list[Any]]:
    """Return the steps that are right, and what albumentations makes of them; add to the problems."""
    steps: list[Step] = []
    made = []
    for number, entry in enumerate(entries, 1):
        opened = _open_entry(entry)
        if opened is None:
            problems.append(
                f"{where}{number}: {_shorten(entry)} is not {{TransformName: {{argument: value}}}}"
            )
            continue
        name, args = opened
        here = f"{where}{number}, {name}"
        wrong = _name_problem(name)
        if wrong:
            problems.append(f"{here}: {wrong}")
            continue
        if isinstance(entry, dict) and "__class_fullname__" in entry:
            args = _drop_idle(name, args)
        ready = dict(args)
        before = len(problems)
        if _holds_steps(name):
            inner = ready.pop("transforms", None)
            if not isinstance(inner, list) or not inner:
                problems.append(f"{here}: needs a list of transforms as its argument `transforms`")
                continue
            kept, built = _check_steps(inner, f"{where}{number}.", problems)
            args, ready = args | {"transforms": kept}, ready | {"transforms": built}
        problems += [f"{here}: {text}" for text in _argument_problems(name, ready)]
        if len(problems) == before:
            made.append(_make(name, ready))
            steps.append({name: args})
    return steps, made


def _open_entry(entry: Any) -> tuple[str, dict[str, Any]] | None:
    """Return name and arguments of one entry in any of its forms, or None."""
    if isinstance(entry, str):
        return entry, {}
    if not isinstance(entry, dict):
        return None
    if "__class_fullname__" in entry:
        name = str(entry["__class_fullname__"])
        if name.startswith("albumentations."):
            name = name.rpartition(".")[2]
        return name, {key: value for key, value in entry.items() if key != "__class_fullname__"}
    if len(entry) != 1:
        return None
    ((name, args),) = entry.items()
    return (name, args or {}) if args is None or isinstance(args, dict) else None


def _drop_idle(name: str, args: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments without those that albumentations writes though they do nothing.

    Of a transform that derives from another it writes the other's arguments too, which it does not take.
    """
    kind = getattr(load_albumentations(), name)
    bases = [inspect.signature(base.__init__).parameters for base in kind.__mro__[1:] if base is not object]
    foreign = {key for known in bases for key in known} - parameters(name).keys()
    idle = _IDLE if name == "Compose" else {}
    return {k: v for k, v in args.items() if k not in foreign and not (k in idle and v == idle[k])}


def _name_problem(name: str) -> str:
    A = load_albumentations()
    if name in REFUSED:
        return f"cannot be used: {REFUSED[name]}"
    known = {
        key
        for key, value in vars(A).items()
        if isinstance(value, type) and issubclass(value, (A.BasicTransform, A.BaseCompose))
    } - _BASES
    if name in known:
        return ""
    return (
        f"is no transform of albumentations {A.__version__}{_nearest(name, sorted(known - REFUSED.keys()))}"
    )


def _holds_steps(name: str) -> bool:
    A = load_albumentations()
    return issubclass(getattr(A, name), A.BaseCompose)


def _argument_problems(name: str, args: dict[str, Any]) -> list[str]:
    """Return what is wrong with a step's arguments, its inner steps being made already."""
    known = [key for key in parameters(name) if key not in ("strict", "seed", "save_applied_params")]
    takes = f"it takes {', '.join(known)}"
    found = [
        f"there is no argument {key!r}{_nearest(key, known)}; {takes}" for key in args if key not in known
    ]
    p = args.get("p", 1)
    if not isinstance(p, (int, float)) or not 0 <= p <= 1:
        found.append(f"p is {p!r}; a probability lies in 0–1")
    if found:
        return found
    said, error = _listen(name, args)
    if error is not None:
        return _explain(error)
    if not said:
        return []
    # Some transforms advertise another one however they are made; that is no mistake.
    always, _ = _listen(name, {"transforms": args["transforms"]} if "transforms" in args else {})
    return [text for text in said if text not in always]


def _listen(name: str, args: dict[str, Any]) -> tuple[list[str], Exception | None]:
    """Make a transform; return what it warned of, and what it failed with."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            _make(name, args)
        except Exception as error:  # whatever albumentations raises on a wrong value
            return [], error
    return [str(warning.message) for warning in caught], None


def _make(name: str, args: dict[str, Any]) -> Any:
    return getattr(load_albumentations(), name)(**fill_in(name, args, _ANY_SIZE))


def _explain(error: Exception) -> list[str]:
    cause = error.__cause__
    if cause is not None and hasattr(cause, "errors"):  # pydantic's, with a row for each argument
        return [
            f"{'.'.join(map(str, row['loc'])) or 'arguments'}: {row['msg']} (found {_shorten(row['input'])})"
            for row in cause.errors()
        ]
    return [str(error).splitlines()[0] if str(error) else type(error).__name__]


def _nearest(name: str, names: list[str]) -> str:
    folded = {other.casefold(): other for other in names}
    close = difflib.get_close_matches(name.casefold(), list(folded), 1)
    return f" (nearest: {folded[close[0]]})" if close else ""


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"
