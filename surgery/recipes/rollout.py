"""surgery models shadow, canary: a candidate beside production on a share of the requests."""

from __future__ import annotations

import json
import sys

from surgery.artifact.errors import ConfigError, StoreError
from surgery.artifact.rollout import Kind
from surgery.artifact.store import Store

DOES = {
    "shadow": "sees {share:.3g} % of the images of {name} behind production's back",
    "canary": "answers {share:.3g} % of the requests for {name}",
}


def roll_out(kind: Kind, name: str, version: int | None, share: float, off: bool, as_json: bool) -> None:
    """Start a candidate beside production, or end it. A service that runs on the store notices by itself.

    Args:
        kind: `shadow`: it sees images and answers nobody. `canary`: it answers.
        name: The model.
        version: Number of the candidate; None with `off`.
        share: Share of the requests, in (0, 1].
        off: End it instead.
        as_json: Print one JSON object.

    Raises:
        ConfigError: Neither a version nor `off`, or both.
        ModelNotFoundError: No such version, or nothing is production.
        StoreError: The version is damaged, production itself or of another task; the share is out of range;
            or, with `off`, the rollout is of the other kind.
    """
    if off == (version is not None):
        raise ConfigError(
            f"surgery models {kind} {name}: name a version, or say --off, one of them",
            f"`surgery models show {name}` and `surgery models list` show what there is.",
        )
    store = Store()
    if off:
        return _end(store, kind, name, as_json)
    assert version is not None
    plan = store.start_rollout(name, version, kind, share)
    if as_json:
        print(json.dumps({"model": name, "rollout": json.loads(plan.to_json())}))
    else:
        print(f"{name}@{version} {DOES[kind].format(share=100 * plan.share, name=name)}")
    _say(f"next: surgery models compare {name}, or surgery models {kind} {name} --off")


def _end(store: Store, kind: Kind, name: str, as_json: bool) -> None:
    try:
        plan = store.rollout(name)
    except StoreError:  # a damaged one is what --off is for
        plan = None
    if plan is not None and plan.kind != kind:
        raise StoreError(
            f"{name} has a {plan.kind}, not a {kind}",
            f"end it with `surgery models {plan.kind} {name} --off`.",
        )
    ended = store.end_rollout(name)
    if as_json:
        print(json.dumps({"model": name, "rollout": None}))
    elif ended is not None:
        print(f"the {kind} of {name}@{ended.version} is over; production answers everything")
    else:
        print(f"nothing runs beside production of {name}")
    _say("next: surgery models list")


def _say(line: str) -> None:
    print(line, file=sys.stderr)
