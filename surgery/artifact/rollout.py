"""A candidate beside production: which version, on which share of the requests, and what for."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

from surgery.artifact.errors import StoreError

SCHEMA = 1
FILE = "rollout.json"
Kind = Literal["shadow", "canary"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class RolloutPlan:
    """What rollout.json says."""

    kind: Kind
    """`shadow`: the candidate sees a share of the images and answers nobody. `canary`: it answers them."""
    version: int
    """The candidate."""
    share: float
    """Share of the requests for production, in (0, 1]."""
    started: str = ""
    """Moment of the start, ISO 8601, UTC; may be left out of a file written by hand."""

    def to_json(self) -> str:
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=2) + "\n"


def read_plan(path: Path, name: str) -> RolloutPlan | None:
    """Return what a file of a model says; None if there is no file.

    Raises:
        StoreError: If it cannot be read or holds something else than a rollout.
    """
    try:
        values = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _broken(path, name, f"cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise _broken(path, name, f"not JSON ({error})") from error
    problems = _problems(values)
    if problems:
        raise _broken(path, name, "; ".join(problems))
    started = values.get("started", "")
    return RolloutPlan(values["kind"], values["version"], float(values["share"]), started)


def check_plan(kind: str, share: object) -> tuple[Kind, float]:
    """Return kind and share if they may be ones.

    Raises:
        StoreError: Unless the kind is known and the share lies in (0, 1].
    """
    if kind not in KINDS:
        raise StoreError(f"{kind!r:.100} is no kind of rollout", f"it is one of {', '.join(KINDS)}.")
    if not _is_share(share):
        raise StoreError(
            f"share is {share!r:.100}; it is more than 0 and at most 1",
            "give the share of the requests, such as --share 0.1 for one in ten.",
        )
    return kind, float(cast(float, share))


def _problems(values: Any) -> list[str]:
    if not isinstance(values, dict):
        return ["not a JSON object"]
    kind, version, share = (values.get(key) for key in ("kind", "version", "share"))
    checks = {
        f"schema is {values.get('schema')!r}, not {SCHEMA}": values.get("schema") == SCHEMA,
        f"kind is {kind!r:.60}, not one of {', '.join(KINDS)}": kind in KINDS,
        f"version is {version!r:.60}, not a number from 1 on": type(version) is int and version >= 1,
        f"share is {share!r:.60}, not in (0, 1]": _is_share(share),
        "started is no text": isinstance(values.get("started", ""), str),
    }
    return [problem for problem, right in checks.items() if not right]


def _is_share(value: object) -> bool:
    return type(value) in (int, float) and 0 < cast(float, value) <= 1


def _broken(path: Path, name: str, reason: str) -> StoreError:
    return StoreError(
        f"{path}: {reason}",
        f"end the rollout with `surgery models shadow {name} --off`, or start it again.",
    )
