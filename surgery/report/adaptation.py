"""What the report shows of an adaptation: both domains before and after, and what chose."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from surgery.deliver.package import Unsealed
from surgery.report import ADAPTATION_FILE
from surgery.report.charts import Line, line_chart, scatter_chart
from surgery.report.sections import MOST_CELLS, spell

CRITERIA = {
    "information": "sure answers, as frequent as the source's labels",
    "entropy": "sure answers",
    "density": "agreement of neighbouring answers",
    "embedded": "loss on the source, weighted as if it were the target",
    "source": "score on the source",
}
"""What each criterion measures."""
PLANES = {"pca": "Principal components", "tsne": "t-SNE"}
MAIN = ("iou", "accuracy")
CURVES = 4
"""Lines that have a colour of their own."""


def show_adaptation(version: Unsealed) -> dict[str, Any] | None:
    """Return what the template prints of an adaptation; None for a version that is none."""
    path = version.folder / ADAPTATION_FILE
    if not path.exists():
        return None
    pages = json.loads(path.read_text("utf-8"))
    facts = pages["facts"]
    history = pages["history"][facts["method"]]
    return {
        "facts": facts,
        "target_score": _target_scores(facts),
        "criteria": _criteria_rows(history, facts),
        "methods": _method_rows(facts) if len(facts["methods"]) > 1 else [],
        "curves": _curves(history, facts["epoch"]),
        "planes": [
            {
                "name": name,
                "charts": [(when, _draw_plane(pages["planes"][when], kind)) for when in ("before", "after")],
            }
            for kind, name in PLANES.items()
            if kind in pages["planes"]["before"]
        ],
        "classes": _class_rows(pages),
        "moves": _moves(pages),
        "labelled": "labels" in facts,
    }


def _main(scores: dict[str, float]) -> float | None:
    return next((scores[key] for key in MAIN if key in scores), None)


def _target_scores(facts: dict[str, Any]) -> list[tuple[str, float, float]]:
    """Return name, before and after of each score on the target's labels."""
    labels = facts.get("labels")
    if labels is None:
        return []
    return [(spell(key), labels["before"][key], value) for key, value in labels["after"].items()]


def _criteria_rows(history: list[dict[str, Any]], facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Return each criterion side by side: before, now, the epoch it would choose, and what that costs."""
    now = next(row for row in history if row["epoch"] == facts["epoch"])
    reached = [_main(row["target"]) for row in history if "target" in row]
    best = max((value for value in reached if value is not None), default=None)
    rows = []
    for name, said in CRITERIA.items():
        choice = max(history, key=lambda row: row["criteria"][name])
        there = _main(choice["target"]) if "target" in choice else None
        rows.append(
            {
                "name": name,
                "said": said,
                "before": history[0]["criteria"][name],
                "now": now["criteria"][name],
                "epoch": choice["epoch"],
                "chose": name == facts["chosen_by"],
                "target": there,
                "regret": None if there is None or best is None else 100 * (best - there),
            }
        )
    return rows


def _method_rows(facts: dict[str, Any]) -> list[dict[str, Any]]:
    rows = [
        {
            "name": name,
            "epoch": tried["epoch"],
            "criterion": tried["criteria"][facts["chosen_by"]],
            "target": _main(tried["target"]) if "target" in tried else None,
            "chosen": name == facts["method"],
        }
        for name, tried in facts["methods"].items()
    ]
    return sorted(rows, key=lambda row: -row["criterion"])


def _curves(history: list[dict[str, Any]], best: int) -> list[dict[str, Any]]:
    """Return the charts of what was noted at each epoch: the game, the losses, the answers."""

    def lines(*pairs: tuple[str, str]) -> list[Line]:
        return [
            Line(name, [(row["epoch"], row["steps"][key]) for row in history if key in row.get("steps", {})])
            for name, key in pairs
        ]

    charts = [
        ("λ and the domain classifier", lines(("λ", "trade"), ("domain accuracy", "accuracy"))),
        ("Losses", lines(("task", "task"), ("domain", "domain"))),
        ("Pseudo-labels in use", lines(("share", "used"))),
    ]
    target = [
        Line(spell(name), [(row["epoch"], row["target"][name]) for row in history if "target" in row])
        for name in list(history[0].get("target", {}))[:CURVES]
    ]
    charts.append(("Scores on the target's labels, not used", target))
    drawn = []
    for title, found in charts:
        kept = [line for line in found if line.points]
        if kept:
            drawn.append(
                {
                    "title": title,
                    "keys": [line.name for line in kept],
                    "chart": line_chart(title, kept, best, {}),
                }
            )
    return drawn


def _draw_plane(plane: dict[str, Any], kind: str) -> Any:
    points = plane[kind]
    groups = [(name, [(x, y) for x, y in points[name]]) for name in ("source", "target")]
    return scatter_chart(f"Source and target by {PLANES[kind]}", groups)


def _class_rows(pages: dict[str, Any]) -> dict[str, Any]:
    """Return for each class how often it is answered on the target, and its score where there are labels."""
    per_class = pages["per_class"]
    column = next(
        key for key in ("iou", "f1") if key in next(iter(per_class["source"]["after"].values()), {"f1": 0})
    )
    rows = []
    for k, name in enumerate(pages["classes"]):
        shares = [pages["frequencies"][when][k] for when in ("before", "after")]
        scores = {
            domain: [found[when].get(name, {}).get(column) for when in ("before", "after")]
            for domain, found in per_class.items()
        }
        rows.append({"name": name, "shares": shares, **scores})
    return {"column": spell(column), "rows": rows}


def _moves(pages: dict[str, Any]) -> dict[str, Any] | None:
    """Return which answers on the target became which; None for too many classes."""
    matrix = np.array(pages["moves"])
    if len(matrix) > MOST_CELLS:
        return None
    shares = matrix / np.maximum(1, matrix.sum(1, keepdims=True))
    cells = [
        list(zip(row.tolist(), part.tolist(), strict=True)) for row, part in zip(matrix, shares, strict=True)
    ]
    same = float(np.trace(matrix) / max(1, matrix.sum()))
    return {"names": pages["classes"], "rows": list(zip(pages["classes"], cells, strict=True)), "same": same}
