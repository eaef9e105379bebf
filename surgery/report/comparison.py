"""The page, the figure and the table of a comparison of models."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from markupsafe import Markup
from rich.console import Console
from rich.table import Table

from surgery.report.charts import Line, bar_chart, path_chart
from surgery.report.template import read_template

TEMPLATE = "comparison.html.j2"
WIDTH = 110
DRAWN = ("P-T, P-T", "P-T, RI-T", "RI-T, RI-T", "P, P-T")
"""Kinds of pairs whose lines are drawn, as many as there are colours."""
KINDS = (*DRAWN, "RI, RI-T", "RI, RI")
"""All kinds, in the order of the figure's colours."""


def render_comparison(study: dict[str, Any]) -> str:
    """Return the page of a comparison: it needs no other file and no network.

    Args:
        study: What `surgery study compare` found, as its JSON holds it.
    """
    charts = {}
    if "kinds" in study:
        if lines := _mean_lines(study):
            charts = {
                "lines": path_chart("Loss along the line", lines, "from the first to the second"),
                "names": [line.name for line in lines],
            }
    else:
        study = study | {"charts": draw_pair(study)}
    return read_template(TEMPLATE).render(study=study, charts=charts)


def draw_pair(found: dict[str, Any]) -> dict[str, Markup]:
    """Return the charts of two models: `cka`, `line` and `relative`, each where it was measured."""
    charts = {}
    if found["cka"]:
        bars = [(name, max(0.0, value)) for name, value in found["cka"].items()]
        charts["cka"] = bar_chart("Linear CKA by stage", bars, "stage, shallow to deep", top=1.0)
    if found["line"]:
        points = found["line"]["points"]
        lines = [
            Line(name, [(row["t"], row[key]) for row in points])
            for name, key in (("loss", "loss"), ("share of wrong answers", "error"))
        ]
        charts["line"] = path_chart("Loss and error along the line", lines, "from the first to the second")
    if found["relative"]:
        shares = [(name, value or 0.0) for name, value in found["relative"].items()]
        charts["relative"] = bar_chart("Relative distance by module", shares, "module, shallow to deep")
    return charts


def draw_figure(study: dict[str, Any]) -> bytes:
    """Return the figure of a comparison as PNG: CKA by stage, and the loss along the line."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    if "kinds" in study:
        for row in study["kinds"]:
            means = [value["mean"] if value else np.nan for value in row["cka"].values()]
            colour = _colour(row["kind"])
            left.plot(list(row["cka"]), means, marker="o", markersize=3, label=row["kind"], color=colour)
        lines = _mean_lines(study)
    else:
        if study["cka"]:
            left.plot(list(study["cka"]), list(study["cka"].values()), marker="o", markersize=3)
        points = study["line"]["points"] if study["line"] else []
        lines = [Line("", [(row["t"], row["loss"]) for row in points])] if points else []
    for line in lines:
        label = line.name or None
        right.plot(
            *zip(*line.points, strict=True), marker="o", markersize=3, label=label, color=_colour(line.name)
        )
    left.set(ylim=(0, 1.02), ylabel="linear CKA")
    left.tick_params(axis="x", rotation=45)
    right.set(xlabel="from the first to the second", ylabel="loss, nats", ylim=(0, None))
    if "kinds" in study:
        left.legend(fontsize=7)
        if lines:
            right.legend(fontsize=7)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    FigureCanvasAgg(figure)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=80, metadata={"Software": None})
    return picture.getvalue()


def tabulate(study: dict[str, Any]) -> str:
    """Return the table of a comparison as plain text."""
    table = Table(box=None)
    if "kinds" in study:
        stages = list(study["kinds"][0]["cka"])
        for column in ("", "pairs", "distance", "kappa", "barrier", *(f"CKA {stage}" for stage in stages)):
            table.add_column(column, justify="left" if not column else "right")
        for row in study["kinds"]:
            measured = [_spell(row[key]) for key in ("distance", "kappa", "barrier")]
            similar = [f"{value['mean']:.3f}" if value else "" for value in row["cka"].values()]
            table.add_row(row["kind"], str(row["pairs"]), *measured, *similar)
        return _print(table)
    for column in ("", "value"):
        table.add_column(column, justify="left" if not column else "right")
    for stage, value in (study["cka"] or {}).items():
        table.add_row(f"CKA {stage}", f"{value:.4f}")
    if study["line"]:
        table.add_row("barrier, nats", f"{study['barrier']:.4g}")
        table.add_row("barrier, share of wrong answers", f"{study['line']['error_barrier']:.4g}")
    if study["mistakes"]:
        facts = study["mistakes"]
        for name, key in (("both", "both"), ("the first alone", "first"), ("the second alone", "second")):
            table.add_row(f"{facts['unit']} wrong in {name}", f"{facts[key]:,}")
        table.add_row("kappa", f"{study['kappa']:.4f}")
    if study["basin"]:
        basin = study["basin"]
        table.add_row("loss inside, nats", f"{basin['loss']:.4g}, variance {basin['variance']:.2g}")
        for name, key in (("above it at the rim with noise", "rim"), ("above it outside", "outside")):
            table.add_row(name, "∞" if basin[key] is None else f"{basin[key]:+.4g}")
    for name, value in (study["distance"] or {}).items():
        share = study["relative"][name]
        table.add_row(
            f"distance {name}",
            f"{value:.4g}" + ("" if share is None else f" ({share:.2%} of that to a random start)"),
        )
    return _print(table)


def _mean_lines(study: dict[str, Any]) -> list[Line]:
    """Return the loss along the lines of each kind of pairs, the mean over its pairs."""
    lines = []
    for kind in DRAWN:
        walked = [row["line"]["points"] for row in study["pairs"] if row["kind"] == kind and row["line"]]
        if walked:
            losses = np.mean([[point["loss"] for point in points] for points in walked], axis=0)
            places = [point["t"] for point in walked[0]]
            lines.append(Line(kind, list(zip(places, losses.tolist(), strict=True))))
    return lines


def _colour(kind: str) -> str:
    """Return the colour of a kind of pairs, the same in both halves of the figure."""
    return f"C{KINDS.index(kind) if kind in KINDS else 0}"


def _spell(spread: dict[str, float] | None) -> str:
    return "" if spread is None else f"{spread['mean']:.3g} ± {spread['deviation']:.2g}"


def _print(table: Table) -> str:
    text = io.StringIO()
    Console(file=text, width=WIDTH + 60, no_color=True).print(table, highlight=False)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"
