"""The page of a version's passport."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from surgery.report.comparison import draw_pair
from surgery.report.criticality import draw_modules
from surgery.report.template import read_template

TEMPLATE = "passport.html.j2"
FOLDERS = re.compile(r"(?<![\w.:/~])/(?:(?:(?!: )[^/\n])*/)*")
"""The folders of an absolute path inside a sentence; up to a colon, since names may hold blanks."""


def render_passport(values: dict[str, Any]) -> str:
    """Return the page: it needs no other file and no network, and carries no style but its one block.

    A service may show it to anybody, so files and folders stand in it by their names alone.

    Args:
        values: What the passport's JSON holds.
    """
    values = _without_folders(values)
    found = values["criticality"]
    return read_template(TEMPLATE).render(
        values=values,
        rows=_list_parts(values),
        charts=draw_pair({key: values[key] for key in ("cka", "line", "relative")}),
        modules=draw_modules(found["modules"]) if found else {},
    )


def _without_folders(values: dict[str, Any]) -> dict[str, Any]:
    """Return a passport's values without the folders of the machine that wrote it."""
    weights, place = dict(values["weights"]), values["weights"].get("place")
    if weights.get("kind") == "file":
        weights["place"] = Path(place).name
    layers = [
        {**part, "from": weights["place"] if part["from"] == place else part["from"]}
        for part in values["layers"]
    ]
    missing = {part: FOLDERS.sub("", reason) for part, reason in values["missing"].items()}
    data = Path(values["data"]).name if values["data"] else None
    return values | {"weights": weights, "layers": layers, "missing": missing, "data": data}


def _list_parts(values: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each stage and the head, with how far each moved."""
    depths = values["depths"] or {}
    rows = []
    for depth, part in enumerate(values["layers"]):
        moved = [value for name, value in (values["distance"] or {}).items() if depths.get(name) == depth]
        rows.append(
            {
                **part,
                "distance": math.sqrt(sum(value**2 for value in moved)) if moved else None,
                "cka": (values["cka"] or {}).get(part["name"]),
            }
        )
    return rows
