"""The page of a passport, which a service shows to anybody: no folder of the machine stands in it."""

from __future__ import annotations

from typing import Any

import pytest

from surgery.report.passport import render_passport


def made_up(**given: Any) -> dict[str, Any]:
    """A passport in which nothing was measured."""
    keys = (
        "data",
        "images",
        "cka",
        "distance",
        "relative",
        "barrier",
        "line",
        "criticality",
        "gap",
        "depths",
    )
    facts = dict.fromkeys((*keys, "parent", "calibration"))
    part = {"name": "stem", "fate": "kept, frozen", "layers": 1, "parameters": 10, "from": "hub"}
    words = {"model": "cars", "version": 4, "backbone": "n", "head": "avg", "strategy": "frozen"}
    told = {"written": "2026-01-01", "surgery_version": "1", "said": [], "scores": {}, "parity": {}}
    return facts | words | told | {"weights": {}, "missing": {}, "layers": [part]} | given


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("/srv/private/cars: the data is not there", "cars: the data is not there"),
        ("/srv/private room/cars/a.png: no image", "a.png: no image"),
        ("tried '/srv/private/w.pth'", "tried &#39;w.pth&#39;"),
        ("val and/or https://example.org/a/b", "val and/or https://example.org/a/b"),
    ],
)
def test_reasons_name_no_folder(reason: str, said: str) -> None:
    page = render_passport(made_up(missing={"cka": reason}))
    assert f"<li>cka: {said}</li>" in page
    assert "private" not in page


def test_a_file_of_weights_and_the_data_are_named_alone() -> None:
    place = "../private/vgg.pth"
    values = made_up(
        weights={"kind": "file", "place": place}, data="/srv/private/cars", images=8,
        layers=[{**made_up()["layers"][0], "from": place}],
    )  # fmt: skip
    page = render_passport(values)
    assert "private" not in page
    assert page.count(">vgg.pth<") == 2
    assert "each side of cars." in page
    assert values["data"] == "/srv/private/cars"


def test_features_are_shown_also_where_there_is_no_line() -> None:
    page = render_passport(made_up(cka={"stem": 0.5}, missing={"line": "no finite number"}))
    assert "Linear CKA with its start" in page
    assert "Along the line" not in page
