"""The bodies of cars: side outlines, panes and wheels, in metres."""

from __future__ import annotations

from dataclasses import dataclass

from surgery.data.samples.canvas import Colour

PAINTS: tuple[Colour, ...] = (
    (196, 198, 202),
    (232, 233, 230),
    (28, 29, 33),
    (92, 96, 102),
    (140, 24, 28),
    (178, 52, 40),
    (26, 54, 112),
    (62, 104, 158),
    (38, 84, 60),
    (206, 168, 52),
    (122, 96, 70),
    (110, 120, 104),
)
GLASS: Colour = (38, 46, 54)
WHEEL: tuple[tuple[float, Colour], ...] = (
    (1.16, (16, 16, 17)),
    (1.0, (26, 26, 27)),
    (0.62, (134, 136, 140)),
    (0.22, (58, 58, 60)),
)
"""Share of the radius and colour of arch, tyre, rim and hub."""
SHADOW = ((0.4, 0.9), (0.3, 0.87), (0.2, 0.84), (0.1, 0.8), (0.02, 0.72), (-0.12, 0.5))
"""How far each layer of a shadow reaches beyond the body, metres, and what light it lets through."""


@dataclass(frozen=True)
class Shape:
    """One body: its outline seen from the left side, the front to the right."""

    outline: tuple[tuple[float, float], ...]
    """(along, up) in metres from the rear bumper's foot over the roof to the front bumper's."""
    glass: tuple[int, ...]
    """Segments of the outline that are windows across the whole width."""
    panes: tuple[tuple[tuple[float, float], ...], ...]
    """Side windows."""
    rear: int
    """Segment that carries the tail lights."""
    front: int
    """Segment that carries the headlights."""
    wheels: tuple[float, float]
    """Where the axles are, along."""
    radius: float
    """Radius of the wheels."""
    width: float
    """Width of the body."""
    belt: float
    """Height from which the body leans inwards."""

    @property
    def length(self) -> float:
        return max(u for u, _ in self.outline)

    @property
    def height(self) -> float:
        return max(y for _, y in self.outline)


SEDAN = Shape(
    outline=(
        (0.0, 0.28), (0.02, 0.95), (0.75, 1.02), (1.35, 1.42), (2.65, 1.44), (3.45, 0.98),
        (4.35, 0.82), (4.5, 0.55), (4.48, 0.24),
    ),
    glass=(2, 4),
    panes=(
        ((0.98, 1.04), (1.42, 1.36), (1.98, 1.38), (1.98, 1.02)),
        ((2.06, 1.02), (2.06, 1.38), (2.6, 1.38), (3.25, 1.0)),
    ),
    rear=0, front=6, wheels=(0.88, 3.62), radius=0.32, width=1.78, belt=0.95,
)  # fmt: skip
HATCH = Shape(
    outline=(
        (0.0, 0.3), (0.04, 0.92), (0.42, 1.42), (0.75, 1.5), (2.3, 1.48), (3.1, 0.98),
        (3.75, 0.8), (3.9, 0.55), (3.88, 0.26),
    ),
    glass=(1, 4),
    panes=(
        ((0.45, 1.0), (0.66, 1.4), (1.5, 1.42), (1.5, 0.98)),
        ((1.58, 0.98), (1.58, 1.42), (2.25, 1.42), (2.92, 0.98)),
    ),
    rear=0, front=6, wheels=(0.68, 3.1), radius=0.31, width=1.72, belt=0.92,
)  # fmt: skip
SUV = Shape(
    outline=(
        (0.0, 0.38), (0.03, 1.1), (0.3, 1.68), (0.7, 1.76), (2.7, 1.74), (3.4, 1.2),
        (4.35, 1.06), (4.55, 0.75), (4.52, 0.34),
    ),
    glass=(1, 4),
    panes=(
        ((0.38, 1.18), (0.55, 1.62), (1.2, 1.66), (1.2, 1.16)),
        ((1.28, 1.16), (1.28, 1.66), (2.1, 1.66), (2.1, 1.16)),
        ((2.18, 1.16), (2.18, 1.66), (2.68, 1.66), (3.22, 1.18)),
    ),
    rear=0, front=6, wheels=(0.85, 3.65), radius=0.37, width=1.9, belt=1.15,
)  # fmt: skip
VAN = Shape(
    outline=(
        (0.0, 0.35), (0.02, 1.25), (0.08, 2.1), (0.3, 2.2), (3.5, 2.16), (4.35, 1.28),
        (4.8, 1.02), (4.95, 0.7), (4.92, 0.3),
    ),
    glass=(1, 4),
    panes=(((3.1, 1.25), (3.1, 1.85), (3.58, 1.92), (4.15, 1.3)),),
    rear=0, front=6, wheels=(0.95, 4.0), radius=0.36, width=1.98, belt=1.4,
)  # fmt: skip
COUPE = Shape(
    outline=(
        (0.0, 0.26), (0.04, 0.86), (0.5, 0.92), (1.5, 1.28), (2.2, 1.3), (3.05, 0.88),
        (4.1, 0.7), (4.3, 0.48), (4.28, 0.22),
    ),
    glass=(2, 4),
    panes=(((1.1, 0.94), (1.6, 1.22), (2.15, 1.23), (2.85, 0.9)),),
    rear=0, front=6, wheels=(0.85, 3.45), radius=0.32, width=1.82, belt=0.86,
)  # fmt: skip
SHAPES = (SEDAN, SEDAN, HATCH, HATCH, SUV, SUV, VAN, COUPE)
