"""Charts as inline SVG, in the colours and letters of the page around them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

WIDTH, HEIGHT = 360, 220
"""Units of the drawing: pixels on a telephone, where it is as wide as the screen."""
LEFT, RIGHT, TOP, BOTTOM = 40, 350, 12, 186
"""Edges of the area inside the axes."""
TICKS = 5
SMALLEST_DOT, LARGEST_DOT = 2.0, 9.0


@dataclass(frozen=True)
class Line:
    """One curve; the n-th of a chart takes the n-th colour of the page."""

    name: str
    points: list[tuple[float, float]]
    """(x, y), x rising."""


@dataclass(frozen=True)
class Scale:
    """From values to places along one axis."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)


@dataclass(frozen=True)
class LogScale:
    """From values above 0 to places along one axis, as far for each factor of ten."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        powers = math.log10(self.low), math.log10(self.high)
        return Scale(*powers, self.start, self.end)(math.log10(value))


def line_chart(
    title: str, lines: Sequence[Line], best: int, starts: dict[int, str], top: float | None = None
) -> Markup:
    """Return curves by epoch.

    Args:
        title: What the y axis shows.
        lines: At least one; a line may have one point or none.
        best: The epoch that is marked.
        starts: Epochs at which something begins, and what: marked too.
        top: Upper end of the y axis; None for the largest value.
    """
    points = [point for line in lines for point in line.points]
    last = max([1.0, *(x for x, _ in points)])
    highest = top or max([y for _, y in points], default=0.0) or 1.0
    ticks = round_steps(0, highest)
    x, y = Scale(0, last, LEFT, RIGHT), Scale(0, max(highest, ticks[-1]), BOTTOM, TOP)
    parts = [_axes(x, y, [step for step in round_steps(0, last) if step == int(step)], ticks, "epoch")]
    for epoch, name in starts.items():
        parts.append(_upright(x(epoch), "start"))
        parts.append(_text(x(epoch) + 3, TOP + 8, name, "start"))
    parts.append(_upright(x(best), "best"))
    for k, line in enumerate(lines):
        places = [(x(px), y(py)) for px, py in line.points]
        path = " ".join(f"{px},{py}" for px, py in places)
        parts.append(Markup('<polyline class="line c{}" points="{}"/>').format(k, path))
        for place, (at, value) in zip(places, line.points, strict=True):
            parts.append(_dot(*place, 2, f"c{k}", f"{line.name}, epoch {at:g}: {value:.4g}"))
    return _svg(f"{title} by epoch", parts)


def reliability_chart(bins: Sequence[dict[str, Any]], whens: Sequence[str]) -> Markup:
    """Return how often answers are right against how sure they are, one dot for a bin.

    Args:
        bins: As `deliver.calibrate.measure` returns them.
        whens: Which of `before` and `after` is drawn, in the order of the colours.
    """
    x, y = Scale(0, 1, LEFT, RIGHT), Scale(0, 1, BOTTOM, TOP)
    ticks = round_steps(0, 1)
    parts = [_axes(x, y, ticks, ticks, "probability")]
    ideal = Markup('<line class="ideal" x1="{}" y1="{}" x2="{}" y2="{}"/>')
    parts.append(ideal.format(x(0), y(0), x(1), y(1)))
    most = max([1, *(row[when]["n"] for row in bins for when in whens)])
    for k, when in enumerate(whens):
        filled = [row[when] for row in bins if row[when]["n"]]
        for part in filled:
            said = f"{when}: {part['n']} answers at {part['probability']:.3f}, right {part['share']:.3f}"
            radius = max(SMALLEST_DOT, LARGEST_DOT * math.sqrt(part["n"] / most))
            parts.append(_dot(x(part["probability"]), y(part["share"]), round(radius, 1), f"c{k}", said))
    return _svg("Share that is right by probability", parts)


def rate_chart(rates: Sequence[float], losses: Sequence[float], chosen: float) -> Markup:
    """Return the loss by learning rate.

    Args:
        rates: Rising, two at least, on an axis of powers of ten.
        losses: One for each.
        chosen: The rate that is marked.
    """
    ticks = round_steps(0, max(losses) or 1.0)
    x, y = LogScale(rates[0], rates[-1], LEFT, RIGHT), Scale(0, max(*losses, ticks[-1]), BOTTOM, TOP)
    parts = [_axes(x, y, powers_of_ten(rates[0], rates[-1]), ticks, "learning rate")]
    parts.append(_upright(x(chosen), "best"))
    left = x(chosen) < (LEFT + RIGHT) / 2
    parts.append(_text(x(chosen) + (4 if left else -4), TOP + 8, f"{chosen:.2g}", "start" if left else "end"))
    path = " ".join(f"{x(rate)},{y(loss)}" for rate, loss in zip(rates, losses, strict=True))
    parts.append(Markup('<polyline class="line c0" points="{}"/>').format(path))
    for rate, loss in zip(rates, losses, strict=True):
        parts.append(_dot(x(rate), y(loss), 1.5, "c0", f"rate {rate:.2g}: {loss:.4g}"))
    return _svg("Loss by learning rate", parts)


def path_chart(title: str, lines: Sequence[Line], label: str) -> Markup:
    """Return curves over a path whose ends are at the sides of the chart.

    Args:
        title: What the y axis shows.
        lines: At least one, with two points at least.
        label: What the x axis shows.
    """
    points = [point for line in lines for point in line.points]
    columns = [x for x, _ in points]
    ticks = round_steps(0, max(y for _, y in points) or 1.0)
    top = max(ticks[-1], *(y for _, y in points))
    x, y = Scale(min(columns), max(columns), LEFT, RIGHT), Scale(0, top or 1.0, BOTTOM, TOP)
    steps = round_steps(min(columns), max(columns))
    parts = [_axes(x, y, steps, ticks, label)]
    for k, line in enumerate(lines):
        places = [(x(px), y(py)) for px, py in line.points]
        path = " ".join(f"{px},{py}" for px, py in places)
        parts.append(Markup('<polyline class="line c{}" points="{}"/>').format(k % 4, path))
        for place, (at, value) in zip(places, line.points, strict=True):
            parts.append(_dot(*place, 2, f"c{k % 4}", f"{line.name}, {at:g}: {value:.4g}"))
    return _svg(title, parts)


def bar_chart(
    title: str, bars: Sequence[tuple[str, float]], label: str, log: bool = False, top: float | None = None
) -> Markup:
    """Return one bar for each name, from left to right.

    Args:
        title: What the y axis shows.
        bars: Name and value, not below 0.
        label: What the x axis shows.
        log: Powers of ten on the y axis; a bar of 0 has no height.
        top: Upper end of the y axis; None for the largest value.
    """
    values = [value for _, value in bars]
    scale: Scale | LogScale
    if log and max(values) > 0:
        low, high = min(value for value in values if value > 0), max(values)
        low, high = 10.0 ** math.floor(math.log10(low) - 1e-9), 10.0 ** math.ceil(math.log10(high) + 1e-9)
        scale, ticks = LogScale(low, high, BOTTOM, TOP), powers_of_ten(low, high)
        ticks = ticks[:: max(1, math.ceil(len(ticks) / (TICKS + 1)))]
    else:
        high = top or max(values) or 1.0
        ticks = round_steps(0, high)
        scale = Scale(0, high, BOTTOM, TOP)
    grid = Markup('<line class="grid" x1="{}" y1="{}" x2="{}" y2="{}"/>')
    parts = [grid.format(LEFT, scale(tick), RIGHT, scale(tick)) for tick in ticks]
    parts += [_text(LEFT - 5, scale(tick) + 4, _spell(tick), "end") for tick in ticks]
    width = (RIGHT - LEFT) / len(bars)
    bar = Markup('<rect class="column" x="{}" y="{}" width="{}" height="{}"><title>{}: {}</title></rect>')
    for k, (name, value) in enumerate(bars):
        left = round(LEFT + k * width + 0.15 * width, 1)
        top = scale(value) if value > 0 or not log else BOTTOM
        parts.append(
            bar.format(left, top, round(0.7 * width, 1), round(BOTTOM - top, 1), name, f"{value:.4g}")
        )
    for k, each in ((0, "start"), (len(bars) - 1, "end")):
        parts.append(_text(LEFT if each == "start" else RIGHT, BOTTOM + 15, bars[k][0], each))
    parts.append(_text((LEFT + RIGHT) / 2, HEIGHT - 4, label, "middle"))
    return _svg(title, parts)


def scatter_chart(title: str, groups: Sequence[tuple[str, list[tuple[float, float]]]]) -> Markup:
    """Return groups of points in a plane whose axes have no unit; the n-th group has the n-th colour.

    Args:
        title: What the plane shows.
        groups: Name and points (x, y) of each.
    """
    everything = [point for _, points in groups for point in points]
    columns, rows = [px for px, _ in everything], [py for _, py in everything]
    x = Scale(*_widened(min(columns), max(columns)), 8, RIGHT)
    y = Scale(*_widened(min(rows), max(rows)), HEIGHT - 8, TOP)
    parts = [
        Markup('<circle class="point c{}" cx="{}" cy="{}" r="2.2"/>').format(k, x(px), y(py))
        # One after the other in turn, so that no group lies on top of all others.
        for place in range(max(len(points) for _, points in groups))
        for k, (_, points) in enumerate(groups)
        for px, py in points[place : place + 1]
    ]
    return _svg(title, parts)


def _widened(low: float, high: float) -> tuple[float, float]:
    return (low, high) if high > low else (low - 1, high + 1)


def powers_of_ten(low: float, high: float) -> list[float]:
    """Return the powers of ten from `low` up to `high`."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    return [10.0**power for power in range(first, last + 1)]


def round_steps(low: float, high: float) -> list[float]:
    """Return about `TICKS` round numbers from `low` up to `high` or just under it."""
    span = high - low
    raw = span / TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * (1 - 1e-9))
    return [low + k * step for k in range(int(span / step + 1e-9) + 1)]


def _axes(
    x: Scale | LogScale, y: Scale, x_ticks: Sequence[float], y_ticks: Sequence[float], label: str
) -> Markup:
    grid = Markup('<line class="grid" x1="{}" y1="{}" x2="{}" y2="{}"/>')
    parts = [grid.format(LEFT, y(value), RIGHT, y(value)) for value in y_ticks]
    parts += [_text(LEFT - 5, y(value) + 4, f"{value:g}", "end") for value in y_ticks]
    parts += [_text(x(value), BOTTOM + 15, _spell(value), "middle") for value in x_ticks]
    parts.append(_text((LEFT + RIGHT) / 2, HEIGHT - 4, label, "middle"))
    return Markup("").join(parts)


def _spell(value: float) -> str:
    return f"{value:g}".replace("e-0", "e-")


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>').format(x, y, anchor, text)


def _upright(x: float, kind: str) -> Markup:
    return Markup('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(kind, x, TOP, x, BOTTOM)


def _dot(x: float, y: float, radius: float, colour: str, said: str) -> Markup:
    dot = Markup('<circle class="dot {}" cx="{}" cy="{}" r="{}"><title>{}</title></circle>')
    return dot.format(colour, x, y, radius, said)


def _svg(title: str, parts: Sequence[Markup]) -> Markup:
    frame = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>')
    return frame.format(WIDTH, HEIGHT, title, Markup("").join(parts))
