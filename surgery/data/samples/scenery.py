"""What stands around the cars: sky, ground, houses, trees, poles, people and street furniture."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import cv2
import numpy as np

from surgery.data.samples.canvas import (
    BUILDING,
    PAVEMENT,
    ROAD,
    VEGETATION,
    Array,
    Canvas,
    Colour,
    Pixels,
)
from surgery.data.samples.vehicles import GLASS, PAINTS, Light

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


@dataclass(frozen=True)
class Street:
    """The plan of a street; x in metres to the right of the camera."""

    left: float
    """Left kerb."""
    right: float
    """Right kerb."""
    lane: float
    """Middle of the lane that leads away from the camera."""
    other: float
    """Middle of the lane that comes towards it."""
    pavement: float
    """Width of each pavement."""
    verge: bool
    """Grass between pavement and houses."""
    crossing: float | None
    """Where a zebra crossing begins, metres ahead."""
    side: float | None
    """Where a side street begins, metres ahead; it is 8 m wide."""

    def walls(self, way: int) -> float:
        """Return x of the house fronts, way −1 left or 1 right."""
        depth = self.pavement + (3.0 if self.verge else 0.0)
        return self.right + depth if way > 0 else self.left - depth


# --- sky and ground -------------------------------------------------------------------------------


def draw_sky(
    canvas: Canvas, rng: Rng, top: Colour, low: Colour, cloud: Colour, cover: float
) -> None:
    """Fill the sky from `top` to `low`, with clouds over a share of it."""
    high, width = int(canvas.camera.horizon) + 2, canvas.camera.width
    rows = np.linspace(0, 1, high, dtype=np.float32)[:, None, None]
    sky = np.asarray(top, np.float32) * (1 - rows) + np.asarray(low, np.float32) * rows
    field = np.zeros((high, width), np.float32)
    for cells, weight in ((3, 0.45), (6, 0.3), (13, 0.17), (27, 0.08)):
        noise = rng.random((cells, cells), dtype=np.float32)
        field += np.float32(weight) * cv2.resize(
            noise, (width, high), interpolation=cv2.INTER_CUBIC
        )
    amount = np.clip((field - np.float32(1 - cover)) * 4, 0, 0.9)[:, :, None]
    mixed = sky * (1 - amount) + np.asarray(cloud, np.float32) * amount
    canvas.image[:high] = np.clip(mixed, 0, 255).astype(np.uint8)


def draw_ground(canvas: Canvas, rng: Rng, street: Street, light: Light, shade_from: int) -> None:
    """Draw road, pavements and verges with their surface, lane marks and the houses' shadow.

    Args:
        canvas: Where it is drawn.
        rng: Source of colours and wear.
        street: The plan.
        light: Light of the scene.
        shade_from: Side whose houses shade the street, −1 or 1; 0 for none.
    """
    first, x, z = canvas.camera.ground()
    asphalt = np.asarray([102, 102, 106]) * rng.uniform(0.78, 1.25) + rng.normal(0, 3, 3)
    slabs = np.asarray([158, 152, 144]) * rng.uniform(0.8, 1.15) + rng.normal(0, 5, 3)
    grass = np.asarray([84, 112, 54]) + rng.normal(0, 10, 3)

    on_road = (x > street.left) & (x < street.right)
    if street.side is not None:
        on_road |= (z > street.side) & (z < street.side + 8)
    paved = ~on_road & (x > street.left - street.pavement) & (x < street.right + street.pavement)
    green = ~on_road & ~paved if street.verge else np.zeros_like(on_road)
    kerb = ~on_road & (x > street.left - 0.2) & (x < street.right + 0.2)
    joints = ~on_road & ~green & (z < 25) & ((x % 0.9 < 0.05) | (z % 0.9 < 0.05))

    colour = np.empty((*x.shape, 3), np.float32)
    colour[:] = slabs
    colour[on_road] = asphalt
    colour[green] = grass
    colour[joints] *= np.float32(0.82)
    colour[kerb] = slabs * 1.18
    # Wear and shadow have no sharp edges: half the resolution does.
    half_x, half_z = x[::2, ::2], z[::2, ::2]
    wear = _surface(half_x, half_z, rng) + _repairs(half_x, half_z, street, rng)
    shade = _shade(half_x, half_z, street, rng, shade_from)
    wear, shade = (cv2.resize(part, x.shape[::-1]) for part in (wear, shade))
    if rng.random() < 0.85:
        marks = _lane_marks(x, z, street, rng)
        worn = np.clip(0.8 + wear[marks] * 3, 0.3, 1)[:, None].astype(np.float32)
        colour[marks] = colour[marks] * (1 - worn) + 225 * worn
    wear[green] *= np.float32(2.2)
    flat = light.ambient + light.direct * max(light.sun[1], 0.0)
    clear = np.exp(-z / np.float32(canvas.haze_m))
    colour *= ((1 + wear) * shade * clear * np.float32(flat))[..., None]
    colour += (1 - clear)[..., None] * np.asarray(canvas.haze, np.float32)
    canvas.image[first:] = np.clip(colour, 0, 255).astype(np.uint8)
    canvas.mask[first:] = np.where(on_road, ROAD, np.where(green, VEGETATION, PAVEMENT))


@functools.cache
def _tiles() -> tuple[Array, Array]:
    """Return two fixed noise tiles, fine and coarse, 512×512, about −1 to 1."""
    rng = np.random.default_rng(7)
    fine = rng.normal(0, 0.5, (512, 512)).astype(np.float32)
    coarse = np.zeros((512, 512), np.float32)
    for cells, weight in ((8, 0.5), (32, 0.35), (128, 0.25)):
        noise = rng.normal(0, 1, (cells, cells)).astype(np.float32)
        coarse += weight * cv2.resize(noise, (512, 512), interpolation=cv2.INTER_LINEAR)
    return fine, coarse


def _surface(x: Array, z: Array, rng: Rng) -> Array:
    """Return the unevenness of a surface, about −0.3 to 0.3, finer the nearer it is."""
    fine, coarse = _tiles()
    dx, dz = rng.uniform(0, 500, 2)

    def look(tile: Array, per_m: float) -> Array:
        columns = ((x * per_m + dx) % 512).astype(np.float32)
        rows = ((z * per_m + dz) % 512).astype(np.float32)
        return cv2.remap(tile, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)

    near = np.clip(np.float32(1) - z / 18, 0, 1)
    return np.float32(0.12) * look(coarse, 9.0) + np.float32(0.1) * near * look(fine, 42.0)


def _repairs(x: Array, z: Array, street: Street, rng: Rng) -> Array:
    """Return what patches of newer asphalt, manholes and wheel tracks add to a surface."""
    change = np.zeros_like(x)
    for _ in range(int(rng.integers(0, 4))):
        left, near = rng.uniform(street.left, street.right - 1), rng.uniform(3, 30)
        wide, long = rng.uniform(0.6, 2.2), rng.uniform(1.5, 9)
        inside = (x > left) & (x < left + wide) & (z > near) & (z < near + long)
        change[inside & (x < street.right)] += np.float32(rng.uniform(-0.22, 0.12))
    for _ in range(int(rng.integers(0, 3))):
        mx, mz = rng.uniform(street.left + 0.5, street.right - 0.5), rng.uniform(4, 18)
        change[(x - mx) ** 2 + (z - mz) ** 2 < 0.1] = -0.4
    for lane in (street.lane, street.other):
        for track in (-0.8, 0.8):
            away = (x - np.float32(lane + track)) / np.float32(0.35)
            change -= np.float32(0.07) * np.exp(-away * away)
    return change


def _lane_marks(x: Array, z: Array, street: Street, rng: Rng) -> np.ndarray:
    middle = (street.lane + street.other) / 2
    offset = rng.uniform(0, 9)
    dashed = ((z + offset) % 9.0 < 3.5) if rng.random() < 0.75 else np.ones_like(z, bool)
    marks = (np.abs(x - middle) < 0.08) & dashed
    if rng.random() < 0.5:
        for edge in (street.left + 2.2, street.right - 2.2):
            marks |= (np.abs(x - edge) < 0.06) & ((z + offset) % 6.0 < 5.6)
    inside = (x > street.left + 0.15) & (x < street.right - 0.15)
    if street.crossing is not None:
        zone = (z > street.crossing) & (z < street.crossing + 2.8)
        marks = np.where(zone, (x % 1.0 < 0.5) & inside, marks)
    if street.side is not None:
        marks &= ~((z > street.side - 0.5) & (z < street.side + 8.5))
    return marks


def _shade(x: Array, z: Array, street: Street, rng: Rng, shade_from: int) -> Array:
    edges, far = np.cumsum(rng.uniform(5, 13, 24)), rng.uniform(2.0, 9.0, 25)
    if shade_from == 0:
        return np.ones_like(x)
    reach = far[np.searchsorted(edges, z)] + 0.25 * np.sin(z * 3)
    wall = street.walls(shade_from)
    depth = (reach - (wall - x) * shade_from) / 0.35
    return (1 - 0.48 * np.clip(depth, 0, 1)).astype(np.float32)


# --- houses ---------------------------------------------------------------------------------------


def draw_houses(
    canvas: Canvas, rng: Rng, street: Street, light: Light, way: int, lit: float
) -> None:
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
    _, coarse = _tiles()
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
        cv2.rectangle(
            front, (x0, y0), (x1, y0 + int((y1 - y0) * rng.uniform(0.2, 0.9))), curtain, -1
        )
    if lights.random() < lit:
        tone = (np.asarray(WARM) * lights.uniform(0.35, 0.85)).tolist()
        cv2.rectangle(glow, (x0, y0), (x1, y1), tone, -1)
    middle = (x0 + x1) // 2
    for picture, colour in ((front, frame), (glow, (0, 0, 0))):
        cv2.line(picture, (middle, y0), (middle, y1), colour, 1)
        cv2.line(picture, (x0, y0 + (y1 - y0) // 3), (x1, y0 + (y1 - y0) // 3), colour, 1)


def _shop(
    front: Pixels, glow: Pixels, rng: Rng, lights: Rng, base: int, w: int, lit: float
) -> None:
    paint = PAINTS[int(rng.integers(len(PAINTS)))]
    open_late = lights.random() < lit * 1.6
    cv2.rectangle(front, (3, base - 58), (w - 4, base), [0.6 * c for c in paint], -1)
    cv2.rectangle(front, (3, base - 58), (w - 4, base - 46), paint, -1)
    for left in range(8, w - 30, 38):
        cv2.rectangle(front, (left, base - 42), (left + 32, base - 8), GLASS, -1)
        shown = (np.asarray([120, 110, 100]) * rng.uniform(0.4, 1.2)).tolist()
        cv2.rectangle(front, (left + 6, base - 26), (left + 24, base - 10), shown, -1)
        if open_late:
            cv2.rectangle(
                glow, (left, base - 42), (left + 32, base - 8), [0.8 * c for c in WARM], -1
            )
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
            bump = [
                (x + wide * t, top * (0.7 + 0.3 * np.sin(3 * t + x)), z)
                for t in np.linspace(0, 1, 7)
            ]
            canvas.face([(x, 0, z), *bump, (x + wide, 0, z)], (70, 92, 54), VEGETATION, front)
        else:
            top = float(rng.uniform(7, 20))
            wall = WALLS[int(rng.integers(len(WALLS)))]
            box = [(x, 0, z), (x, top, z), (x + wide, top, z), (x + wide, 0, z)]
            canvas.face(box, wall, BUILDING, front)
            for level in np.arange(2.0, top - 1.2, 3.0):
                band = [
                    (x + wide * t, level + dy, z)
                    for t, dy in ((0.1, 0), (0.1, 1.3), (0.9, 1.3), (0.9, 0))
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
