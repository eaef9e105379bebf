"""A candidate beside production: what may be one, what ends it, and a damaged file of it."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from typing import Any

import pytest
from tiny_graph import Add

from surgery.artifact import disk
from surgery.artifact.errors import ModelNotFoundError, StoreError
from surgery.artifact.rollout import RolloutPlan
from surgery.artifact.store import Store


@pytest.fixture
def three(store: Store, add: Add) -> Store:
    """A store of cars@1, which is production, cars@2 and cars@3."""
    add(), add(), add()
    return store


def test_started_read_and_ended(three: Store) -> None:
    assert three.rollout("cars") is None
    plan = three.start_rollout("cars", 2, "shadow", 0.25)
    assert (plan.kind, plan.version, plan.share) == ("shadow", 2, 0.25)
    assert datetime.fromisoformat(plan.started).utcoffset() is not None
    assert three.rollout("cars") == plan
    path = three.root / "cars" / "rollout.json"
    values = {"schema": 1, "kind": "shadow", "version": 2, "share": 0.25, "started": plan.started}
    assert json.loads(path.read_text()) == values
    another = three.start_rollout("cars", 3, "canary", 1)
    assert three.rollout("cars") == another
    assert another.share == 1.0
    assert three.end_rollout("cars") == another
    assert three.rollout("cars") is None
    assert three.end_rollout("cars") is None
    assert three.aliases("cars") == {"production": 1}


def test_starting_again_is_another_start(three: Store) -> None:
    assert three.start_rollout("cars", 2, "shadow", 0.5) != three.start_rollout("cars", 2, "shadow", 0.5)


def test_a_file_written_by_hand_needs_no_moment(three: Store) -> None:
    values = {"schema": 1, "kind": "canary", "version": 3, "share": 1}
    (three.root / "cars" / "rollout.json").write_text(json.dumps(values))
    assert three.rollout("cars") == RolloutPlan("canary", 3, 1.0)


@pytest.mark.parametrize("share", [0, -0.1, 1.0001, float("nan"), float("inf"), True, "0.5", None, 10**400])
def test_a_share_lies_above_0_and_up_to_1(three: Store, share: Any) -> None:
    with pytest.raises(StoreError, match="share is"):
        three.start_rollout("cars", 2, "shadow", share)
    assert three.rollout("cars") is None


def test_what_can_be_no_candidate(three: Store, add: Add) -> None:
    with pytest.raises(StoreError, match="production itself"):
        three.start_rollout("cars", 1, "canary", 0.1)
    with pytest.raises(ModelNotFoundError, match="no version 9"):
        three.start_rollout("cars", 9, "canary", 0.1)
    with pytest.raises(ModelNotFoundError, match="boats"):
        three.start_rollout("boats", 1, "canary", 0.1)
    with pytest.raises(StoreError, match="no kind"):
        three.start_rollout("cars", 2, "bluegreen", 0.1)
    labels = add("cars", "classify")
    with pytest.raises(StoreError, match="does 'classify', production 'segment'"):
        three.start_rollout("cars", labels.version, "shadow", 0.1)
    (three.root / "cars" / "2" / "previews" / "0.png").write_bytes(b"another")
    with pytest.raises(StoreError, match="altered"):
        three.start_rollout("cars", 2, "shadow", 0.1)
    (three.root / "cars" / "aliases.json").unlink()
    with pytest.raises(ModelNotFoundError, match="production"):
        three.start_rollout("cars", 3, "shadow", 0.1)
    assert three.rollout("cars") is None
    with pytest.raises(ModelNotFoundError):
        three.end_rollout("boats")


DAMAGED = {
    "empty": "",
    "half": '{"schema": 1, "kind": "sha',
    "list": "[]",
    "schema": '{"schema": 2, "kind": "shadow", "version": 2, "share": 0.5}',
    "kind": '{"schema": 1, "kind": ["shadow"], "version": 2, "share": 0.5}',
    "version": '{"schema": 1, "kind": "shadow", "version": true, "share": 0.5}',
    "share": '{"schema": 1, "kind": "shadow", "version": 2, "share": NaN}',
    "huge": '{"schema": 1, "kind": "shadow", "version": 2, "share": 1' + "0" * 400 + "}",
    "started": '{"schema": 1, "kind": "shadow", "version": 2, "share": 0.5, "started": 7}',
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_file_is_named_and_can_be_ended_or_replaced(three: Store, text: str) -> None:
    path = three.root / "cars" / "rollout.json"
    path.write_text(text)
    with pytest.raises(StoreError, match=r"rollout\.json") as caught:
        three.rollout("cars")
    assert "surgery models shadow cars --off" in caught.value.hint
    assert three.resolve("cars").version == 1
    assert three.promote("cars", 3).version == 3
    assert three.end_rollout("cars") is None
    assert not path.exists()
    path.write_text(text)
    three.start_rollout("cars", 2, "shadow", 0.5)
    assert three.rollout("cars") is not None


def test_all_mistakes_of_a_file_are_said_at_once(three: Store) -> None:
    (three.root / "cars" / "rollout.json").write_text('{"schema": 1, "kind": "blue", "share": 2}')
    with pytest.raises(StoreError, match=r"kind is 'blue'.*version is None.*share is 2"):
        three.rollout("cars")


def test_what_becomes_production_is_no_candidate_any_more(three: Store) -> None:
    three.start_rollout("cars", 2, "canary", 0.1)
    three.promote("cars", 3)
    assert three.rollout("cars") is not None
    three.promote("cars", 2)
    assert three.rollout("cars") is None
    three.start_rollout("cars", 3, "shadow", 0.1)
    three.rollback("cars")
    assert three.resolve("cars").version == 3
    assert three.rollout("cars") is None


def test_a_candidate_is_not_removed(three: Store) -> None:
    three.start_rollout("cars", 2, "shadow", 0.1)
    with pytest.raises(StoreError, match="candidate of a shadow") as caught:
        three.remove("cars", 2)
    assert "surgery models shadow cars --off" in caught.value.hint
    three.remove("cars", 3)
    three.end_rollout("cars")
    three.remove("cars", 2)
    assert three.list_versions("cars") == [1]


def test_a_rollout_that_a_killed_promotion_left_does_not_come_back(three: Store) -> None:
    three.start_rollout("cars", 2, "shadow", 0.1)
    (three.root / "cars" / "aliases.json").write_text('{"production": 2, "previous": 1}')
    three.rollback("cars")
    assert three.rollout("cars") is None


def test_whoever_promotes_meanwhile_is_seen(three: Store) -> None:
    """The check that the candidate is not production holds when the file is written."""
    waiting = threading.Event()
    verify = three.verify
    three.verify = lambda *names: (verify(*names), waiting.set())[0]  # type: ignore[method-assign]
    with ThreadPoolExecutor(1) as pool:
        with disk.locked(three.root / "cars"):
            start = pool.submit(three.start_rollout, "cars", 2, "canary", 0.1)
            assert waiting.wait(10)
            time.sleep(0.05)
            three._write_aliases("cars", {"production": 2, "previous": 1})
        with pytest.raises(StoreError, match="production itself"):
            start.result(10)
    assert three.rollout("cars") is None


def test_starts_and_promotions_at_once_never_leave_production_as_its_own_candidate(three: Store) -> None:
    def change(step: int) -> None:
        version = 1 + step % 3
        if step % 2:
            three.promote("cars", version)
            return
        with suppress(StoreError):  # where it is production itself
            three.start_rollout("cars", version, "shadow", 0.5)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(change, range(60)))
    plan = three.rollout("cars")
    assert plan is None or plan.version != three.aliases("cars")["production"]
