"""What single sections of the report show, as plain values for the template."""

from __future__ import annotations

from typing import Any

import numpy as np

from surgery.artifact.manifest import Manifest
from surgery.deliver.package import Unsealed
from surgery.report.charts import reliability_chart
from surgery.report.counts import ClassCounts
from surgery.report.intervals import Interval
from surgery.train.evaluate import Scores

MOST_CELLS = 30
"""Classes up to which the whole confusion matrix is shown."""
MOST_PAIRS = 20
"""Pairs of classes that are named where it is not."""
FATES = (
    ("kept, frozen", "Kept and frozen"),
    ("kept, retrained", "Kept and retrained"),
    ("new, frozen", "Random and frozen"),
    ("new", "New"),
)
"""What may become of a layer, and how the report calls it."""
SPELLED = {
    "iou": "IoU",
    "dice": "Dice",
    "iou_per_image": "IoU per image",
    "dice_per_image": "Dice per image",
    "map": "mean average precision",
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "f1": "F1",
    "n": "images",
}
"""Names of scores as people write them; others lose their underscores only."""


def spell(name: str) -> str:
    """Return the name of a score for people."""
    return SPELLED.get(name, name.replace("_", " "))


def score_rows(manifest: Manifest, scores: Scores, intervals: dict[str, Interval]) -> list[dict[str, Any]]:
    """Return each score with its interval and what it was before training, if that is known."""
    before = manifest.scores.get("before", {})
    return [
        {
            "name": spell(name),
            "value": value,
            "before": before.get(name),
            "interval": intervals[name],
        }
        for name, value in scores.scores.items()
    ]


def class_table(scores: Scores) -> dict[str, Any]:
    """Return the scores of each class, as columns and rows."""
    rows = scores.per_class
    columns = list(next(iter(rows.values()), {}))
    return {
        "columns": [spell(name) for name in columns],
        "rows": [(name, [values[column] for column in columns]) for name, values in rows.items()],
    }


def confusion_table(manifest: Manifest, scores: Scores) -> dict[str, Any] | None:
    """Return the confusion matrix of labels, or of many classes the pairs that are confused most often.

    Returns:
        `rows`: (class, images, cells), each cell a count and its share of the row; or `pairs`: (truth,
        answer, count, share of the truth's images). None for masks and for several labels per image.
    """
    if manifest.task != "classify" or not scores.confusion:
        return None
    matrix = np.array(scores.confusion)
    shares = matrix / np.maximum(1, matrix.sum(1, keepdims=True))
    names = list(scores.classes)
    if len(names) <= MOST_CELLS:
        cells = [
            list(zip(row.tolist(), share.tolist(), strict=True))
            for row, share in zip(matrix, shares, strict=True)
        ]
        return {
            "names": names,
            "rows": list(zip(names, matrix.sum(1).tolist(), cells, strict=True)),
            "pairs": [],
        }
    wrong = matrix * (1 - np.eye(len(names), dtype=int))
    order = np.argsort(-wrong, axis=None, kind="stable")[:MOST_PAIRS]
    places = [divmod(int(place), len(names)) for place in order]
    pairs = [(names[i], names[j], int(wrong[i, j]), float(shares[i, j])) for i, j in places if wrong[i, j]]
    return {"names": names, "rows": [], "pairs": pairs}


def classifiers(manifest: Manifest) -> dict[str, Any] | None:
    """Return the classifiers that were compared, the best first; None where weights were learnt by steps."""
    facts = manifest.strategy.get("classifier")
    if facts is None:
        return None
    rows = [
        {
            "name": row["classifier"],
            "settings": ", ".join(
                f"{key} {', '.join(value) if isinstance(value, list) else value}"
                for key, value in row["settings"].items()
            ),
            "accuracy": row["accuracy"],
            "log_loss": row["log_loss"],
        }
        for row in facts["candidates"]
    ]
    return {**facts, "candidates": rows}


def calibration(manifest: Manifest) -> dict[str, Any] | None:
    """Return what is known of a classifier's probabilities, and the chart of it; None for masks."""
    facts = manifest.scores.get("calibration")
    if facts is None:
        return None
    moved = facts["temperature"] != 1
    chart = reliability_chart(facts["bins"], ("before", "after") if moved else ("before",))
    rows = [("val", facts), *([("test", facts["test"])] if "test" in facts else [])]
    return {"facts": facts, "moved": moved, "chart": chart, "rows": rows, "bins": len(facts["bins"])}


def layers(manifest: Manifest) -> dict[str, Any]:
    """Return what became of the layers: by fate, and part by part."""
    facts = manifest.provenance["layers"]
    total = max(1, sum(part["parameters"] for part in facts["parts"]))
    fates = [
        {
            "key": k,
            "name": name,
            "share": facts["totals"][fate]["parameters"] / total,
            **facts["totals"][fate],
        }
        for k, (fate, name) in enumerate(FATES)
        if fate in facts["totals"]
    ]
    keys = {fate: k for k, (fate, _) in enumerate(FATES)}
    parts = [
        {**part, "key": keys[part["fate"]], "fate": dict(FATES)[part["fate"]].lower()}
        for part in facts["parts"]
    ]
    weights = manifest.provenance.get("weights", {})
    told = {
        name: weights[key]
        for name, key in (("weights", "place"), ("licence", "licence"), ("credit", "credit"))
        if weights.get(key)
    }
    return {"fates": fates, "parts": parts, "trained": facts["trained"], "total": total, "weights": told}


def data(version: Unsealed, counts: ClassCounts) -> dict[str, Any]:
    """Return what the data set holds, and whether it is the one that was trained on."""
    table, names = version.table, version.manifest.output.classes
    fingerprint = table.fingerprint()
    columns: list[tuple[str, list[Any], Any]] = []
    for split, images in counts.images.items():
        columns.append((f"{split}: images", counts.with_class[split], images))
        if counts.pixels:
            total = max(1, sum(counts.pixels[split]))
            shares = [f"{pixels / total:.2%}" for pixels in counts.pixels[split]]
            columns.append((f"{split}: pixels", shares, ""))
    return {
        "root": str(table.root.resolve()),
        "layout": table.layout,
        "split_rule": table.split_rule,
        "fingerprint": fingerprint,
        "trained_on": fingerprint == version.manifest.data["fingerprint"],
        "ignored": version.manifest.data.get("ignored", []),
        "columns": [name for name, _, _ in columns],
        "rows": [(name, [values[k] for _, values, _ in columns]) for k, name in enumerate(names)],
        "totals": [total for _, _, total in columns],
    }
