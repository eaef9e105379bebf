"""Cars as extruded side outlines, and boxes that look like cars and are not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from surgery.data.samples.bodies import GLASS, PAINTS, SHADOW, SHAPES, WHEEL, Shape
from surgery.data.samples.canvas import CAR, CLUTTER, SCALE, Array, Canvas, Colour

Rng = np.random.Generator


@dataclass(frozen=True)
class Place:
    """Where something stands on the ground."""

    x: float
    """Centre to the right of the camera, metres."""
    z: float
    """Centre ahead of the camera, metres."""
    yaw: float
    """Heading, radians; 0 drives away from the camera, right-hand turns are positive."""

    def points(self, local: Sequence[Sequence[float]], length: float) -> Array:
        """Return world points (k, 3) of local ones (along from the rear, up, to the right)."""
        u, y, v = np.asarray(local, np.float32).T
        u = u - length / 2
        sin, cos = float(np.sin(self.yaw)), float(np.cos(self.yaw))
        return np.stack([self.x + u * sin + v * cos, y, self.z + u * cos - v * sin], axis=1)


@dataclass(frozen=True)
class Light:
    """The sun, as far as faces care."""

    sun: tuple[float, float, float]
    """Unit vector towards the sun (x, y, z)."""
    ambient: float
    """Brightness of a face that the sun does not reach."""
    direct: float
    """What the sun adds at right angles."""

    def on(self, normal: Array) -> float:
        """Return the brightness of a face with a unit normal (3,)."""
        return self.ambient + self.direct * max(0.0, float(np.dot(normal, self.sun)))


def draw_car(canvas: Canvas, rng: Rng, place: Place, light: Light, beams: bool) -> None:
    """Draw one car; all of it, panes and wheels too, is labelled as car.

    Args:
        canvas: Where it is drawn.
        rng: Source of its shape and colours.
        place: Where it stands.
        light: Light of the scene.
        beams: Its lamps are lit.
    """
    shape = SHAPES[int(rng.integers(len(SHAPES)))]
    base = np.asarray(PAINTS[int(rng.integers(len(PAINTS)))]) + rng.normal(0, 8, 3)
    paint = tuple(np.clip(base, 8, 245).tolist())
    body = _Body(canvas, shape, place, light, paint, size=float(rng.uniform(0.94, 1.08)))
    body.shadow()
    body.wheels(far=True)
    body.strips(beams, braking=bool(rng.random() < 0.4))
    body.side()
    body.wheels(far=False)


class _Body:
    """The parts of one car, in the order in which they are drawn."""

    def __init__(
        self, canvas: Canvas, shape: Shape, place: Place, light: Light, paint: Colour, size: float
    ) -> None:
        self.canvas, self.shape, self.place = canvas, shape, place
        self.light, self.paint, self.size = light, paint, size
        # The side whose outward normal looks towards the camera at the origin.
        right = (np.cos(place.yaw), -np.sin(place.yaw))
        aside = right[0] * place.x + right[1] * place.z
        self.facing = -1.0 if aside > 0 else 1.0
        self.fine = canvas.camera.scale(place.z) > 16 * SCALE
        # From straight behind or ahead neither side is seen.
        self.sideways = abs(aside) > shape.width * size / 2
        self.ahead = np.asarray([np.sin(place.yaw), 0, np.cos(place.yaw)], np.float32)
        self.right = np.asarray([right[0], 0, right[1]], np.float32)

    def half(self, y: float) -> float:
        shape = self.shape
        lean = max(0.0, (y - shape.belt) / max(shape.height - shape.belt, 0.1))
        return shape.width / 2 * (1 - 0.16 * lean)

    def world(self, local: Sequence[Sequence[float]]) -> Array:
        scaled = np.asarray(local, np.float32) * self.size
        return self.place.points(scaled.tolist(), self.shape.length * self.size)

    def shadow(self) -> None:
        length, half = self.shape.length / 2, self.shape.width / 2
        t = np.linspace(0, 2 * np.pi, 33)[:-1]
        # A rounded rectangle: |u|^4 + |v|^4 = 1.
        u, v = (np.sign(f) * np.sqrt(np.abs(f)) for f in (np.cos(t), np.sin(t)))
        for grow, dark in SHADOW if self.fine else SHADOW[2::3]:
            along, across = length + u * (length + grow), v * (half + grow)
            ring = np.stack([along, np.zeros_like(u), across], axis=1)
            self.canvas.darken(self.canvas.camera.project(self.world(ring.tolist())), dark)

    def strip(self, segment: int, a: tuple[float, float], b: tuple[float, float]) -> Array:
        """Return a quad on a segment: across from a[0] to a[1] (−1 to 1), along b (0 to 1)."""
        (u0, y0), (u1, y1) = self.shape.outline[segment : segment + 2]
        corners = []
        for t, side in ((b[0], a[0]), (b[0], a[1]), (b[1], a[1]), (b[1], a[0])):
            y = y0 + (y1 - y0) * t
            corners.append((u0 + (u1 - u0) * t, y, self.half(y) * side))
        return self.world(corners)

    def strips(self, beams: bool, braking: bool) -> None:
        outline = self.shape.outline
        visible = []
        for i in range(len(outline) - 1):
            (u0, y0), (u1, y1) = outline[i], outline[i + 1]
            steep = float(np.hypot(u1 - u0, y1 - y0))
            normal = self.ahead * (-(y1 - y0) / steep) + np.asarray([0, (u1 - u0) / steep, 0])
            quad = self.strip(i, (-1, 1), (0, 1))
            eye = np.asarray([0, self.canvas.camera.above_m, 0]) - quad.mean(0)
            if float(np.dot(normal, eye)) > 0:
                visible.append((float(quad[:, 2].mean()), i, quad, normal))
        for _, i, quad, normal in sorted(visible, key=lambda entry: -entry[0]):
            self.canvas.face(quad, self.paint, CAR, self.light.on(normal))
            if i in self.shape.glass:
                self.pane(self.strip(i, (-0.88, 0.88), (0.1, 0.9)), normal)
            if i == self.shape.rear:
                self.tail(i, beams, braking)
            if i == self.shape.front:
                self.nose(i, beams)

    def pane(self, quad: Array, normal: Array) -> None:
        self.canvas.face(quad, GLASS, None, 0.75 + 0.5 * self.light.on(normal))
        # A band of reflected sky runs slantwise over the upper part.
        low, high = quad[:2].mean(0), quad[2:].mean(0)
        band = np.stack([quad[3], quad[2], quad[2] * 0.6 + low * 0.4, quad[3] * 0.7 + high * 0.3])
        self.canvas.face(band, (84, 96, 108), None, self.light.on(normal))

    def tail(self, i: int, beams: bool, braking: bool) -> None:
        face = self.canvas.face
        face(self.strip(i, (-1, 1), (0.0, 0.32)), (46, 46, 48), None)
        face(self.strip(i, (-0.27, 0.27), (0.42, 0.62)), (214, 212, 196), None)
        glow: Colour = (235, 30, 18) if beams and braking else (150, 14, 10) if beams else (0, 0, 0)
        red: Colour = (214, 34, 28) if braking else (142, 22, 22)
        for a in ((-0.97, -0.68), (0.68, 0.97)):
            face(self.strip(i, a, (0.58, 0.9)), red, None, glow=glow)

    def nose(self, i: int, beams: bool) -> None:
        face = self.canvas.face
        face(self.strip(i + 1, (-1, 1), (0.0, 1)), (58, 58, 60), None)
        face(self.strip(i, (-0.5, 0.5), (0.15, 0.8)), (30, 30, 32), None)
        face(self.strip(i + 1, (-0.27, 0.27), (0.2, 0.6)), (214, 212, 196), None)
        glow: Colour = (255, 246, 216) if beams else (0, 0, 0)
        for a in ((-0.95, -0.6), (0.6, 0.95)):
            quad = self.strip(i, a, (0.1, 0.85))
            face(quad, (226, 230, 232), None, glow=glow)
            if beams:
                x, y, z = quad.mean(0).tolist()
                self.canvas.lamps.append((x, y, z, (255, 240, 205)))

    def side(self) -> None:
        shape, way = self.shape, self.facing
        if not self.sideways:
            return
        light = self.light.on(self.right * way)
        outline = [(u, y, self.half(y) * way) for u, y in shape.outline]
        self.canvas.face(self.world(outline), self.paint, CAR, light)
        low, end = shape.belt - 0.1, shape.length
        lit = [(0.04, low), (0.05, low + 0.07), (end - 0.5, low + 0.02), (end - 0.4, low - 0.05)]
        self.flat(lit, tuple(min(1.18 * c + 14, 255.0) for c in self.paint), light)
        lower = [(0.02, 0.3), (0.02, 0.58), (end - 0.03, 0.54), (end - 0.03, 0.27)]
        self.flat(lower, tuple(0.84 * c for c in self.paint), light)
        rocker = [(0.05, 0.3), (shape.length - 0.05, 0.27), (shape.length - 0.1, 0.4), (0.05, 0.43)]
        self.flat(rocker, tuple(0.6 * c for c in self.paint), light)
        for pane in shape.panes:
            self.flat(pane, GLASS, 0.6 + 0.5 * light)
            foot, high, top, heel = pane[0], pane[1], pane[2], pane[-1]
            slant = [high, top, _between(top, heel, 0.35), _between(high, foot, 0.6)]
            self.flat(slant, (80, 92, 104), light)
        for pane in shape.panes[:-1] if self.fine else ():
            u = pane[-1][0] + 0.04
            seam = [(u, 0.42), (u, shape.belt), (u + 0.025, shape.belt), (u + 0.025, 0.42)]
            self.flat(seam, tuple(0.55 * c for c in self.paint), light)
            grip = [(u - 0.28, shape.belt - 0.16), (u - 0.1, shape.belt - 0.16)]
            grip += [(u - 0.1, shape.belt - 0.12), (u - 0.28, shape.belt - 0.12)]
            self.flat(grip, tuple(0.5 * c + 60 for c in self.paint), light)

    def flat(self, points: Sequence[tuple[float, float]], colour: Colour, light: float) -> None:
        local = [(u, y, self.half(y) * self.facing) for u, y in points]
        self.canvas.face(self.world(local), colour, None, light)

    def wheels(self, far: bool) -> None:
        way = -self.facing if far else self.facing
        angles = np.linspace(0, 2 * np.pi, 21 if self.fine else 9)[:-1]
        hidden = far or not self.sideways
        for along in self.shape.wheels:
            for radius, colour in WHEEL:
                if hidden and radius != 1:
                    continue
                ring = [
                    (
                        along + self.shape.radius * radius * np.cos(t),
                        # The arch is a hole in the body and does not reach below it.
                        max(self.shape.radius * (1 + radius * np.sin(t)), 0.3 if radius > 1 else 0.0),
                        self.shape.width / 2 * way * 0.985,
                    )
                    for t in angles
                ]
                self.canvas.face(self.world(ring), colour, CAR if radius == 1 else None)


def draw_box(canvas: Canvas, rng: Rng, place: Place, light: Light) -> None:
    """Draw a container, a cabin or a kiosk: as large and as colourful as a car, and none."""
    kind = ("dumpster", "container", "kiosk", "cabin")[int(rng.integers(4))]
    length = float(rng.uniform(1.8, 4.2) if kind != "kiosk" else rng.uniform(1.6, 2.4))
    width = float(rng.uniform(1.2, 1.9))
    height = {"dumpster": 1.35, "container": 1.9, "kiosk": 2.5, "cabin": 2.3}[kind]
    height *= float(rng.uniform(0.85, 1.12))
    colour = tuple(np.clip(np.asarray(PAINTS[int(rng.integers(12))]) + rng.normal(0, 10, 3), 8, 245))
    slope = 0.25 if kind == "dumpster" else 0.0
    outline = ((0.0, 0.08), (-slope, height), (length + slope, height), (length, 0.08))
    shape = Shape(outline, (), (), -1, -1, (0.3, length - 0.3), 0.14, width, height + 1.0)
    box = _Body(canvas, shape, place, light, colour, 1.0)
    box.shadow()
    _box_faces(box, rng, kind, length, height)


def _box_faces(box: _Body, rng: Rng, kind: str, length: float, height: float) -> None:
    canvas, light = box.canvas, box.light
    shade = light.on(box.right * box.facing)
    toward = 0 if box.ahead[2] > 0 else 2
    end = box.strip(toward, (-1, 1), (0, 1))
    end_light = light.on(-box.ahead if toward == 0 else box.ahead)
    if height < canvas.camera.above_m + 0.2:
        canvas.face(box.strip(1, (-1, 1), (0, 1)), box.paint, CLUTTER, 0.8)
    outline = [(u, y, box.half(y) * box.facing) for u, y in box.shape.outline]
    canvas.face(end, box.paint, CLUTTER, end_light)
    canvas.face(box.world(outline), box.paint, CLUTTER, shade)
    dark = tuple(0.6 * c for c in box.paint)
    if kind in ("container", "dumpster"):
        for u in np.arange(0.25, length - 0.1, 0.38):
            rib = [(u, 0.2), (u, height - 0.15), (u + 0.09, height - 0.15), (u + 0.09, 0.2)]
            box.flat(rib, dark, shade)
        lid = [(0, height - 0.12), (0, height), (length, height), (length, height - 0.12)]
        box.flat(lid, tuple(0.4 * c + 40 for c in box.paint), shade)
    else:
        low, high = height * rng.uniform(0.38, 0.48), height * rng.uniform(0.68, 0.8)
        box.flat([(0.2, low), (0.2, high), (length - 0.3, high), (length - 0.3, low)], GLASS, shade)
        a = (-0.7, 0.7)
        canvas.face(box.strip(toward, a, (low / height, high / height)), GLASS, None, end_light)
    if rng.random() < 0.6:
        note = [(length * 0.3, height * 0.15), (length * 0.3, height * 0.3)]
        note += [(length * 0.6, height * 0.3), (length * 0.6, height * 0.15)]
        box.flat(note, (222, 216, 190), shade)


def _between(a: tuple[float, float], b: tuple[float, float], t: float) -> tuple[float, float]:
    return a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t
