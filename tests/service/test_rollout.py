"""Whom a candidate gets, when two answers agree, what is counted, and when a candidate is stopped."""

from __future__ import annotations

import hashlib
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from service.rollout import KEPT, SHOWN, Rollout
from service.shadow import Said, Seen, compare, mask_overlap
from surgery.artifact.answer import encode_mask_png
from surgery.artifact.errors import SurgeryError
from surgery.artifact.manifest import OutputSpec
from surgery.artifact.rollout import RolloutPlan

LABELS = OutputSpec("softmax", ("ant", "bee", "cat"))
MANY = OutputSpec("sigmoid", ("ant", "bee", "cat"))
STREET = OutputSpec("softmax", ("rest", "car", "bus"), (0, 1, 2), "rest")
SWAPPED = OutputSpec("softmax", ("bus", "rest", "car"), (5, 0, 9), "rest")
FLOOR = OutputSpec("softmax", ("road", "sky"), (0, 1))


def served(version: int, output: OutputSpec = LABELS) -> Any:
    return SimpleNamespace(manifest=SimpleNamespace(name="cars", version=version, output=output))


def rollout(share: float = 1.0, kind: Any = "canary", version: int = 2, **named: Any) -> Rollout:
    return Rollout(RolloutPlan(kind, version, share), served(1), served(version), **named)


KEYS = [f"user-{k}" for k in range(2000)]


def test_the_choice_is_a_digest_of_key_name_and_version() -> None:
    for key in KEYS[:50]:
        digest = hashlib.sha256(f"cars@2\n{key}".encode()).hexdigest()
        at = int(digest[:16], 16) / 16**16
        assert rollout(at + 1e-9).chooses(key)
        assert not rollout(at).chooses(key)


def test_as_many_are_chosen_as_the_share_says() -> None:
    for share, least, most in ((0.1, 160, 240), (0.5, 920, 1080), (1.0, 2000, 2000)):
        assert least <= sum(rollout(share).chooses(key) for key in KEYS) <= most


def test_whoever_is_chosen_stays_chosen_at_a_larger_share() -> None:
    small, large = rollout(0.1), rollout(0.3)
    assert all(large.chooses(key) for key in KEYS if small.chooses(key))


def test_another_candidate_is_given_to_others() -> None:
    one, two = rollout(0.5, version=2), rollout(0.5, version=3)
    both = sum(one.chooses(key) and two.chooses(key) for key in KEYS)
    assert 420 <= both <= 580


def test_a_few_errors_do_not_stop_a_candidate() -> None:
    running = rollout()
    for _ in range(4):
        running.failed("candidate", ValueError("x"))
    assert not running.stopped
    running.failed("candidate", ValueError("the fifth"))
    assert "5 of its last 5 answers failed, at last with: ValueError: the fifth" in running.stopped
    assert not running.chooses("anybody")
    assert "cars@2 is stopped, production answers everything" in running.problem()
    assert running.summary()["stopped"] == running.stopped


def test_rare_errors_do_not_stop_a_candidate_however_many() -> None:
    running = rollout()
    for _ in range(40):
        running.failed("candidate", ValueError("x"))
        for _ in range(49):
            running.answered("candidate", 0.1)
            assert not running.stopped
    for _ in range(2):  # 2 of 50 are 4 %, 3 of 50 are 6 %
        running.failed("candidate", ValueError("x"))
    assert not running.stopped
    running.failed("candidate", ValueError("x"))
    assert "3 of its last 50" in running.stopped


def test_production_is_never_stopped() -> None:
    running = rollout()
    for _ in range(20):
        running.failed("production", ValueError("x"))
    assert not running.stopped
    assert running.describe()["production"]["errors"] == 20


def test_what_is_nobodys_business_is_not_said() -> None:
    running = rollout(tidy=lambda text: text.replace("/srv/models/", ""))
    for _ in range(5):
        running.failed("candidate", SurgeryError("/srv/models/cars/2/model.onnx: cannot run\nmore", "hint"))
    assert running.stopped.endswith("at last with: cars/2/model.onnx: cannot run")


def test_percentiles_are_of_the_latest() -> None:
    running = rollout()
    assert running.describe()["candidate"]["milliseconds"] == {"p50": None, "p95": None}
    for _ in range(50):
        running.answered("candidate", 9)
    for k in range(KEPT):
        running.answered("candidate", (k % 100 + 1) / 1e3)
    running.answered("production", None)
    body = running.describe()
    assert body["candidate"] == {
        "version": 2, "answered": KEPT + 50, "errors": 0, "milliseconds": {"p50": 50, "p95": 95}
    }  # fmt: skip
    assert body["production"]["answered"] == 1
    assert body["production"]["milliseconds"]["p50"] is None


def test_the_latest_disagreements_are_kept() -> None:
    running = rollout(kind="shadow")
    for k in range(SHOWN + 5):
        running.compared({"sha256": str(k)})
    for _ in range(15):
        running.compared(None)
    body = running.describe()
    assert [row["sha256"] for row in body["disagreements"]] == [str(k) for k in range(5, SHOWN + 5)]
    assert (body["compared"], body["agreed"], body["agreement"]) == (120, 15, 0.125)
    assert "agreement" not in rollout(kind="canary").describe()


def test_masks_overlap_by_class_and_not_by_value() -> None:
    one = np.array([[0, 0, 1, 1], [0, 2, 1, 1]], np.uint8)
    assert mask_overlap(one, STREET, one, STREET) == 1
    other = np.array([[0, 9, 9, 9], [0, 5, 0, 9]], np.uint8)  # one car more, one car less
    assert mask_overlap(one, STREET, other, SWAPPED) == pytest.approx(4 / 6)
    bus = np.array([[0, 0, 1, 1], [0, 1, 1, 1]], np.uint8)
    assert mask_overlap(one, STREET, bus, STREET) == pytest.approx(4 / 5)


def test_masks_without_anything_agree_and_something_against_nothing_does_not() -> None:
    nothing, something = np.zeros((3, 3), np.uint8), np.eye(3, dtype=np.uint8)
    assert mask_overlap(nothing, STREET, nothing, SWAPPED) == 1
    assert mask_overlap(nothing, STREET, something, STREET) == 0


def test_without_a_rest_every_pixel_counts() -> None:
    one = np.zeros((1, 10), np.uint8)
    other = one.copy()
    other[0, 0] = 1
    assert mask_overlap(one, FLOOR, other, FLOOR) == pytest.approx(0.9)


def seen(one: OutputSpec, other: OutputSpec, labels: Any = None, mask: Any = None) -> Any:
    running = SimpleNamespace(production=served(1, one), candidate=served(2, other))
    said = Said(labels, None if mask is None else encode_mask_png(mask))
    return Seen(running, b"picture", said, 0.1)  # type: ignore[arg-type]


def answer(labels: Any = None, mask: Any = None) -> Any:
    return SimpleNamespace(labels=labels, mask=mask)


def labels(*named: tuple[str, float], present: int | None = None) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [{"label": label, "probability": share} for label, share in named]
    if present is not None:
        for k, row in enumerate(rows):
            row["present"] = k < present
    return rows


def test_labels_agree_where_the_first_is_the_same() -> None:
    sure, unsure = labels(("bee", 0.9), ("ant", 0.1)), labels(("bee", 0.4), ("cat", 0.3))
    assert compare(seen(LABELS, LABELS, sure), answer(unsure)) is None
    other = labels(("ant", 0.6), ("bee", 0.4))
    assert compare(seen(LABELS, LABELS, sure), answer(other)) == {
        "sha256": hashlib.sha256(b"picture").hexdigest(),
        "production": {"labels": [{"label": "bee", "probability": 0.9}]},
        "candidate": {"labels": [{"label": "ant", "probability": 0.6}]},
    }


def test_several_labels_agree_where_all_that_are_present_are_the_same() -> None:
    one = labels(("ant", 0.9), ("bee", 0.6), ("cat", 0.1), present=2)
    turned = labels(("bee", 0.9), ("ant", 0.8), ("cat", 0.1), present=2)
    fewer = labels(("ant", 0.9), ("bee", 0.4), ("cat", 0.1), present=1)
    assert compare(seen(MANY, MANY, one), answer(turned)) is None
    differs = compare(seen(MANY, MANY, one), answer(fewer))
    assert differs is not None
    assert [row["label"] for row in differs["production"]["labels"]] == ["ant", "bee"]
    assert [row["label"] for row in differs["candidate"]["labels"]] == ["ant"]


def test_masks_agree_from_nine_tenths() -> None:
    one = np.ones((1, 100), np.uint8)
    nearly, less = one.copy(), one.copy()
    nearly[0, :10], less[0, :11] = 0, 0
    assert compare(seen(STREET, STREET, mask=one), answer(mask=nearly)) is None
    differs = compare(seen(STREET, STREET, mask=one), answer(mask=less))
    assert differs is not None
    assert differs["overlap"] == 0.89
    assert differs["candidate"] == {"pixels": {"rest": 0.11, "car": 0.89, "bus": 0.0}}
