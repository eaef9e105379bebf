"""The page, the figure and the table of the modules' criticality."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console
from rich.table import Table

from surgery.report.charts import bar_chart
from surgery.report.template import read_template

TEMPLATE = "criticality.html.j2"
WIDTH = 110


def render_criticality(study: dict[str, Any]) -> str:
    """Return the page of a study of criticality: it needs no other file and no network.

    Args:
        study: What `surgery study criticality` found, as its JSON holds it.
    """
    charts = draw_modules(study["modules"]) | {"times": _times(study)}
    return read_template(TEMPLATE).render(study=study, charts=charts)


def draw_modules(modules: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the bar charts of modules by depth: `criticality` and `rewound`."""
    measured = [(row["module"], row["criticality"]) for row in modules]
    rewound = [(row["module"], row["rewound_loss"]) for row in modules]
    depth = "module, shallow to deep"
    return {
        "criticality": bar_chart("Criticality by module", measured, depth, log=True),
        "rewound": bar_chart("Loss with the module at its start", rewound, depth),
    }


def draw_figure(study: dict[str, Any]) -> bytes:
    """Return the bar chart by depth as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    modules = study["modules"]
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.bar([row["module"] for row in modules], [row["criticality"] for row in modules])
    if any(row["criticality"] for row in modules):
        axes.set_yscale("log")
    axes.tick_params(axis="x", rotation=60, labelsize=7)
    axes.set(ylabel="criticality μ", title=study["model"])
    axes.grid(axis="y", alpha=0.3)
    FigureCanvasAgg(figure)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=80, metadata={"Software": None})
    return picture.getvalue()


def tabulate(study: dict[str, Any]) -> str:
    """Return the table of a study of criticality as plain text."""
    table = Table("module", box=None)
    for column in ("criticality", "place", "noise", "distance", "loss at its start", "wrong at its start"):
        table.add_column(column, justify="right")
    for row in study["modules"]:
        numbers = [f"{row[key]:.4g}" for key in ("alpha", "sigma", "distance", "rewound_loss")]
        shown = f"{'≥ ' if row['at_least'] else ''}{row['criticality']:.4g}"
        table.add_row(row["module"], shown, *numbers, f"{row['rewound_error']:.1%}")
    text = io.StringIO()
    Console(file=text, width=WIDTH, no_color=True).print(table, highlight=False)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"


def _times(study: dict[str, Any]) -> list[tuple[str, list[float | None]]]:
    """Return for each module how far out of the bound its start takes the loss, at each checkpoint."""
    rows = []
    for k, module in enumerate(study["modules"]):
        used = []
        for then in study["checkpoints"]:
            room = then["most"] - then["loss"]
            rise = then["modules"][k]["rewound_loss"] - then["loss"]
            used.append(rise / room if room > 0 else None)
        rows.append((module["module"], used))
    return rows
