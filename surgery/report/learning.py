"""What the learning curves say: did it learn, and did it learn the training images by heart."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from surgery.report.charts import Line, line_chart, rate_chart

OVERFIT_SHARE = 0.25
"""It overfits where the loss on val is larger than on train by more than this share of itself …"""
OVERFIT_LOSS = 0.02
"""… and by more than this: next to nothing is no gap."""
RISE_SHARE = 0.1
"""Val gets worse where its loss ends higher than its lowest by more than this share."""


def judge(history: list[dict[str, Any]], best_epoch: int) -> str:
    """Return in a sentence or two whether the model overfits.

    Args:
        history: One row an epoch, as in history.json; the first is before training.
        best_epoch: Epoch whose weights were kept.
    """
    row = next(row for row in history if row["epoch"] == best_epoch)
    train, val = row["train_loss"], row["val_loss"]
    if best_epoch == 0:
        return "No epoch was better on val than the start, so the weights from before training were kept."
    if not (is_number(train) and is_number(val)):
        return f"At the best epoch, {best_epoch}, a loss is no number, so train and val cannot be compared."
    found = f"At the best epoch, {best_epoch}, the loss is {train:.4g} on train and {val:.4g} on val"
    gap = val - train
    if gap > OVERFIT_LOSS and gap > OVERFIT_SHARE * val:
        found += ": the model overfits, it fits the images it has learnt from clearly better than new ones."
    elif gap > 0:
        found += ": a small gap, no sign of overfitting."
    else:
        found += ": val is no worse than train, no sign of overfitting."
    return " ".join([found, *_rise(history)])


def _rise(history: list[dict[str, Any]]) -> list[str]:
    """Say so if val got worse again while train went on to get better."""
    losses = {row["epoch"]: row["val_loss"] for row in history if is_number(row["val_loss"])}
    lowest, last = min(losses, key=lambda epoch: losses[epoch]), max(losses)
    rise = losses[last] - losses[lowest]
    trained = {row["epoch"]: row["train_loss"] for row in history if is_number(row["train_loss"])}
    falls = trained.get(last, math.inf) < trained.get(lowest, -math.inf)
    if not falls or rise <= max(OVERFIT_LOSS, RISE_SHARE * losses[lowest]):
        return []
    return [
        f"After epoch {lowest} the loss on val rises again, to {losses[last]:.4g}, while that on train "
        "still falls: a sign that longer training overfits."
    ]


def draw_losses(history: list[dict[str, Any]], best_epoch: int) -> Markup:
    """Return the chart of the loss on train and on val, by epoch."""
    lines = [
        Line(name, [(row["epoch"], row[key]) for row in history if is_number(row[key])])
        for name, key in (("train", "train_loss"), ("val", "val_loss"))
    ]
    return line_chart("Loss", lines, best_epoch, phase_starts(history))


def draw_scores(history: list[dict[str, Any]], best_epoch: int, names: Sequence[str]) -> Markup:
    """Return the chart of the scores on val, by epoch; `names` take the page's colours in their order."""
    lines = [
        Line(name, [(row["epoch"], row["val"][name]) for row in history if is_number(row["val"].get(name))])
        for name in names
    ]
    return line_chart("Scores on val", lines, best_epoch, phase_starts(history), top=1.0)


def draw_rates(path: Path) -> dict[str, Any] | None:
    """Return the chart of a range test (`RangeTest.save`) and the rate it chose, or None."""
    if not path.exists():
        return None
    tested = json.loads(path.read_text("utf-8"))
    chart = rate_chart(tested["rates"], tested["losses"], tested["chosen"])
    return {"chart": chart, "chosen": tested["chosen"]}


def phase_starts(history: list[dict[str, Any]]) -> dict[int, str]:
    """Return the epoch behind which each phase but the first begins, and its name."""
    pairs = itertools.pairwise(history)
    return {before["epoch"]: after["phase"] for before, after in pairs if before["phase"] != after["phase"]}


def is_number(value: Any) -> bool:
    """Tell whether a value of the history can be drawn."""
    return isinstance(value, int | float) and math.isfinite(value)
