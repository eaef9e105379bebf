"""The page of a version's passport."""

from __future__ import annotations

import math
from typing import Any

from surgery.report.comparison import draw_pair
from surgery.report.criticality import draw_modules
from surgery.report.template import read_template

TEMPLATE = "passport.html.j2"


def render_passport(values: dict[str, Any]) -> str:
    """Return the page: it needs no other file and no network, and carries no style but its one block.

    Args:
        values: What the passport's JSON holds.
    """
    found = values["criticality"]
    return read_template(TEMPLATE).render(
        values=values,
        rows=_list_parts(values),
        charts=draw_pair({key: values[key] for key in ("cka", "line", "relative")}),
        modules=draw_modules(found["modules"]) if found else {},
    )


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
