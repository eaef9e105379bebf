"""Damaged images cost whoever sends them an error, and nobody else anything."""

from __future__ import annotations

from typing import Any

import pytest
from damage import KINDS, damaged, real_bomb
from starlette.testclient import TestClient
from tiny_models import RED

# Pillow says so when a TIFF's tags make no sense.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

COUNT = 300
REFUSED = (400, 415, 422)
FORMATS = ("image/jpeg", "image/png", "image/svg+xml", "application/octet-stream")


def ask(client: TestClient, image: bytes, number: int) -> Any:
    """Ask either model, in a form or as the body itself, under any label."""
    model = ("colours", "cars")[number % 2]
    label = FORMATS[number // 4 % len(FORMATS)]
    if number // 2 % 2:
        headers = {"Content-Type": label}
        return client.post("/predict", params={"model": model}, content=image, headers=headers)
    files = {"image": ("image", image, label)}
    return client.post("/predict", files=files, data={"model": model})


def test_damage_is_the_same_for_the_same_seed_and_of_every_kind() -> None:
    first, again, other = list(damaged(1, 60)), list(damaged(1, 60)), list(damaged(2, 60))
    assert first == again
    assert first != other
    assert {kind for kind, _ in first} == set(KINDS)
    assert len(real_bomb()) < 100_000


def test_no_damaged_image_costs_a_5xx_or_changes_the_next_answer(client: TestClient) -> None:
    def good() -> list[Any]:
        bodies = [ask(client, RED, number).json() for number in range(4)]
        return [{key: value for key, value in body.items() if key != "milliseconds"} for body in bodies]

    before, statuses = good(), set()
    for number, (kind, image) in enumerate(damaged(seed=0, count=COUNT)):
        answer = ask(client, image, number)
        statuses.add(answer.status_code)
        assert answer.status_code in (200, *REFUSED), (kind, number, answer.text)
        if answer.status_code in REFUSED:
            assert list(answer.json()) == ["error"], (kind, number)
            error = answer.json()["error"]
            assert set(error) == {"code", "message", "hint"}, (kind, number)
            assert error["code"], (kind, number)
            assert error["message"], (kind, number)
    assert {200} < statuses  # some oddities are whole images
    assert good() == before
