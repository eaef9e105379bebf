"""What a study leaves behind: a figure, a table, a JSON, and two sentences."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from surgery.study.spread import Spread

Row = dict[str, Any]


@dataclass(frozen=True)
class Curve:
    """One line of the figure.

    Attributes:
        name: In the legend.
        x: Places, rising.
        y: A spread for each; its interval is drawn as a band.
        dashed: Draw it so.
        faint: Draw it grey: what the others are compared with.
        marks: Points alone, without a line.
    """

    name: str
    x: list[float]
    y: list[Spread]
    dashed: bool = False
    faint: bool = False
    marks: bool = False


@dataclass(frozen=True)
class Result:
    """A finished study.

    Attributes:
        study: Its name.
        title: What was studied, on what.
        sentences: What was found, and what it means for the next decision.
        rows: The table.
        values: All numbers, as plain values.
        curves: The figure's lines.
        x, y: What its axes show.
        log_x: The x axis goes by factors.
        ticks: Places of the x axis that are marked, and what stands there.
        bounds: What y cannot pass: Student's intervals know of none.
    """

    study: str
    title: str
    sentences: tuple[str, str]
    rows: list[Row]
    values: dict[str, Any]
    curves: list[Curve]
    x: str
    y: str
    log_x: bool = False
    ticks: list[tuple[float, str]] = field(default_factory=list)
    bounds: tuple[float, float] = (-math.inf, math.inf)


def write_result(result: Result, folder: Path) -> dict[str, Any]:
    """Write all files of a study, each aside and renamed; returns what `study.json` holds."""
    folder.mkdir(parents=True, exist_ok=True)
    body = {
        "study": result.study,
        "title": result.title,
        "sentences": list(result.sentences),
        "table": result.rows,
        **result.values,
    }
    _write(folder / "table.csv", lambda path: path.write_text(to_csv(result.rows), "utf-8"))
    _write(folder / "table.txt", lambda path: path.write_text(to_text(result.rows), "utf-8"))
    for kind in ("png", "svg"):
        _write(folder / f"figure.{kind}", lambda path, kind=kind: draw(result, path, kind))  # type: ignore[misc]
    _write(folder / "study.md", lambda path: path.write_text(to_page(result), "utf-8"))
    text = json.dumps(_plain(body), indent=1) + "\n"
    _write(folder / "study.json", lambda path: path.write_text(text, "utf-8"))
    return body


def to_csv(rows: Sequence[Row]) -> str:
    """Return a table as CSV."""
    out = io.StringIO()
    writer = csv.DictWriter(out, _keys(rows), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def to_text(rows: Sequence[Row]) -> str:
    """Return a table as Markdown, its columns aligned."""
    keys = _keys(rows)
    cells = [[_cell(row.get(key)) for key in keys] for row in rows]
    widths = [max([len(key), *(len(line[i]) for line in cells)]) for i, key in enumerate(keys)]
    lines = [keys, ["-" * width for width in widths], *cells]
    return "".join(
        "| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |\n"
        for line in lines
    )


def to_page(result: Result) -> str:
    """Return the study as a page of Markdown."""
    said = "\n\n".join(result.sentences)
    return f"# {result.title}\n\n{said}\n\n![figure](figure.png)\n\n{to_text(result.rows)}"


def draw(result: Result, path: Path, kind: str) -> None:
    """Draw the figure: a line and a band for each curve."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": result.study, "font.size": 9}):
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        axes = figure.subplots()
        least, most = result.bounds
        colours = iter(matplotlib.colormaps["tab10"].colors)  # type: ignore[attr-defined]
        for curve in result.curves:
            colour = "0.55" if curve.faint else next(colours, "0.2")
            means = [each.mean for each in curve.y]
            style = "none" if curve.marks else "--" if curve.dashed else "-"
            axes.plot(curve.x, means, style, marker="o", markersize=3.5, color=colour, label=curve.name)
            if curve.marks:
                axes.errorbar(curve.x, means, [each.half or 0 for each in curve.y], fmt="none", ecolor=colour)
            elif not curve.faint:
                low, high = (
                    [max(each.low, least) for each in curve.y],
                    [min(each.high, most) for each in curve.y],
                )
                axes.fill_between(curve.x, low, high, color=colour, alpha=0.12, linewidth=0)
        if result.log_x:
            axes.set_xscale("log", base=2)
        if result.ticks:
            axes.set_xticks([at for at, _ in result.ticks], [text for _, text in result.ticks])
            axes.minorticks_off()
        axes.set_xlabel(result.x)
        axes.set_ylabel(result.y)
        axes.set_title(result.title, fontsize=10)
        axes.grid(alpha=0.25)
        axes.legend(fontsize=8)
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        figure.savefig(path, format=kind, dpi=110, metadata=metadata)


def _write(path: Path, write: Callable[[Path], Any]) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _keys(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row))


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> Any:
    """JSON has no NaN: what could not be measured is null."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
