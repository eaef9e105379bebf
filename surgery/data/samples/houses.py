"""Houses along a street, and what closes the view at its far end."""

from __future__ import annotations

import cv2
import numpy as np

from surgery.data.samples.bodies import GLASS, PAINTS
from surgery.data.samples.canvas import BUILDING, VEGETATION, Canvas, Colour, Pixels
from surgery.data.samples.scenery import Street, noise_tiles
from surgery.data.samples.vehicles import Light

Rng = np.random.Generator
WALLS: tuple[Colour, ...] = (
    (168, 92, 70),
    (196, 176, 146),
    (214, 208, 196),
    (142, 132, 122),
    (186, 150, 104),
    (120, 98, 88),
    (170, 176, 180),
    (206, 190, 150),
    (132, 74, 60),
)
WARM: Colour = (255, 196, 110)


def draw_houses(canvas: Canvas, rng: Rng, street: Street, light: Light, way: int, lit: float) -> None:
    """Draw the row of houses on one side, the farthest first.

    Args:
        canvas: Where it is drawn.
        rng: Source of everything about them.
        street: The plan.
        light: Light of the scene.
        way: −1 left, 1 right.
        lit: Share of windows with light in them, 0 by day.
    """
    wall = street.walls(way)
    lights = _fork(rng)
    plots = []
    z = float(rng.uniform(-6, 1))
    while z < 85:
        long = float(rng.uniform(7, 17))
        gap = float(rng.uniform(2, 9)) if rng.random() < 0.22 else 0.0
        cut = street.side is not None and z < street.side + 8 and z + long > street.side
        if not cut:
            plots.append((z, z + long))
        z += long + gap
        if cut and street.side is not None:
            z = street.side + 8 + float(rng.uniform(0, 1))
    for near, far in reversed(plots):
        set_back = float(rng.uniform(0, 1.2)) if rng.random() < 0.4 else 0.0
        _draw_house(canvas, rng, lights, light, wall + way * set_back, way, near, far, lit)


def _draw_house(
    canvas: Canvas,
    rng: Rng,
    lights: Rng,
    light: Light,
    x: float,
    way: int,
    near: float,
    far: float,
    lit: float,
) -> None:
    floors = int(rng.integers(2, 6))
    height = 3.1 * floors + float(rng.uniform(0.4, 1.2))
    wall = np.clip(np.asarray(WALLS[int(rng.integers(len(WALLS)))]) + rng.normal(0, 10, 3), 20, 240)
    front, shine = _front(rng, lights, far - near, height, floors, wall, lit)
    start = max(near, 1.5)
    if far <= start + 0.5:
        return
    if near > 2:  # the end wall that looks towards the camera
        end = light.on(np.asarray([0, 0, -1], np.float32))
        deep = [
            (x, height, near),
            (x + way * 11, height, near),
            (x + way * 11, 0, near),
            (x, 0, near),
        ]
        canvas.face(deep, wall * 0.92, BUILDING, end)
    if rng.random() < 0.5:
        tiles = np.asarray([112, 66, 54]) if rng.random() < 0.6 else np.asarray([78, 80, 86])
        ridge, deep_x = height + float(rng.uniform(1.8, 3.4)), x + way * 4
        gable = [(x, height, start), (deep_x, ridge, start), (x + way * 8, height, start)]
        canvas.face(gable, wall * 0.86, BUILDING, light.on(np.asarray([0, 0, -1], np.float32)))
        roof = [(x, height, start), (deep_x, ridge, start), (deep_x, ridge, far), (x, height, far)]
        canvas.face(roof, tiles, BUILDING, light.ambient + 0.6 * light.direct)
    cut = int(front.shape[1] * (start - near) / (far - near))
    front, shine = front[:, cut:], shine[:, cut:]
    ends = (start, far)
    if way > 0:  # seen from the street the far end of a right-hand house is on the left
        front, shine, ends = front[:, ::-1], shine[:, ::-1], (far, start)
    quad = [(x, height, ends[0]), (x, height, ends[1]), (x, 0, ends[1]), (x, 0, ends[0])]
    shade = light.on(np.asarray([-way, 0, 0], np.float32))
    canvas.texture(quad, np.ascontiguousarray(front), np.ascontiguousarray(shine), BUILDING, shade)


def _front(
    rng: Rng, lights: Rng, long: float, high: float, floors: int, wall: np.ndarray, lit: float
) -> tuple[Pixels, Pixels]:
    """Return the picture of a house front and its light, both (h, w, 3), 20 pixels a metre."""
    w, h = int(long * 20), int(high * 20)
    _, coarse = noise_tiles()
    row, column = rng.integers(0, 512 - min(h, 511)), rng.integers(0, 512 - min(w, 511))
    patch = coarse[row : row + h, column : column + w]
    stain = cv2.resize(patch, (w, h))[..., None] if patch.shape != (h, w) else patch[..., None]
    picture = wall.astype(np.float32) * (1 + 0.05 * stain)
    if rng.random() < 0.5:  # courses of brick
        picture[::5] *= 0.9
        picture[:, :: int(rng.integers(9, 12))] *= 0.96
    front = np.clip(picture, 0, 255).astype(np.uint8)
    glow = np.zeros_like(front)
    shop = rng.random() < 0.45
    wide, tall = int(rng.uniform(16, 28)), int(rng.uniform(26, 36))
    step = wide + int(rng.uniform(14, 34))
    frame = (np.asarray([228, 226, 220]) if rng.random() < 0.7 else wall * 0.5).tolist()
    for floor in range(floors):
        base = h - int(floor * 62)
        if floor == 0 and shop:
            _shop(front, glow, rng, lights, base, w, lit)
            continue
        for left in range(step // 3, w - wide, step):
            box = (left, base - 18 - tall, left + wide, base - 18)
            _window(front, glow, rng, lights, box, frame, lit)
    if rng.random() < 0.5:
        front[: int(rng.integers(4, 10))] = np.clip(wall * 0.7, 0, 255)
    return front, glow


def _window(
    front: Pixels,
    glow: Pixels,
    rng: Rng,
    lights: Rng,
    box: tuple[int, int, int, int],
    frame: list[float],
    lit: float,
) -> None:
    x0, y0, x1, y1 = box
    cv2.rectangle(front, (x0 - 2, y0 - 2), (x1 + 2, y1 + 3), frame, -1)
    pane = (np.asarray(GLASS) * rng.uniform(0.8, 1.9) + rng.uniform(0, 25)).tolist()
    cv2.rectangle(front, (x0, y0), (x1, y1), pane, -1)
    if rng.random() < 0.3:
        curtain = (np.asarray([200, 196, 188]) * rng.uniform(0.7, 1)).tolist()
        cv2.rectangle(front, (x0, y0), (x1, y0 + int((y1 - y0) * rng.uniform(0.2, 0.9))), curtain, -1)
    if lights.random() < lit:
        tone = (np.asarray(WARM) * lights.uniform(0.35, 0.85)).tolist()
        cv2.rectangle(glow, (x0, y0), (x1, y1), tone, -1)
    middle = (x0 + x1) // 2
    for picture, colour in ((front, frame), (glow, (0, 0, 0))):
        cv2.line(picture, (middle, y0), (middle, y1), colour, 1)
        cv2.line(picture, (x0, y0 + (y1 - y0) // 3), (x1, y0 + (y1 - y0) // 3), colour, 1)


def _shop(front: Pixels, glow: Pixels, rng: Rng, lights: Rng, base: int, w: int, lit: float) -> None:
    paint = PAINTS[int(rng.integers(len(PAINTS)))]
    open_late = lights.random() < lit * 1.6
    cv2.rectangle(front, (3, base - 58), (w - 4, base), [0.6 * c for c in paint], -1)
    cv2.rectangle(front, (3, base - 58), (w - 4, base - 46), paint, -1)
    for left in range(8, w - 30, 38):
        cv2.rectangle(front, (left, base - 42), (left + 32, base - 8), GLASS, -1)
        shown = (np.asarray([120, 110, 100]) * rng.uniform(0.4, 1.2)).tolist()
        cv2.rectangle(front, (left + 6, base - 26), (left + 24, base - 10), shown, -1)
        if open_late:
            cv2.rectangle(glow, (left, base - 42), (left + 32, base - 8), [0.55 * c for c in WARM], -1)
    if open_late:
        cv2.rectangle(glow, (3, base - 56), (w - 4, base - 48), [0.5 * c for c in paint], -1)


def draw_far_end(canvas: Canvas, rng: Rng, light: Light, lit: float) -> None:
    """Draw what closes the view: a skyline or trees, some 110 m away."""
    front = light.on(np.asarray([0, 0, -1], np.float32))
    lights = _fork(rng)
    x = -70.0
    while x < 70:
        wide = float(rng.uniform(6, 15))
        z = 110 + float(rng.uniform(-6, 6))
        if rng.random() < 0.35:
            top = float(rng.uniform(4, 9))
            bump = [(x + wide * t, top * (0.7 + 0.3 * np.sin(3 * t + x)), z) for t in np.linspace(0, 1, 7)]
            canvas.face([(x, 0, z), *bump, (x + wide, 0, z)], (70, 92, 54), VEGETATION, front)
        else:
            top = float(rng.uniform(7, 20))
            wall = WALLS[int(rng.integers(len(WALLS)))]
            box = [(x, 0, z), (x, top, z), (x + wide, top, z), (x + wide, 0, z)]
            canvas.face(box, wall, BUILDING, front)
            for level in np.arange(2.0, top - 1.2, 3.0):
                band = [
                    (x + wide * t, level + dy, z) for t, dy in ((0.1, 0), (0.1, 1.3), (0.9, 1.3), (0.9, 0))
                ]
                canvas.face(band, np.asarray(wall) * 0.7, None, front)
            for _ in range(int(lit * 12)):
                wx, wy = x + wide * lights.uniform(0.1, 0.8), top * lights.uniform(0.2, 0.9)
                pane = [(wx, wy, z), (wx, wy + 0.9, z), (wx + 0.7, wy + 0.9, z), (wx + 0.7, wy, z)]
                canvas.face(pane, GLASS, None, glow=tuple(0.6 * c for c in WARM))
        x += wide


def _fork(rng: Rng) -> Rng:
    # Lit windows draw from a generator of their own, so that the street is the same by night.
    return np.random.default_rng(int(rng.integers(2**31)))
