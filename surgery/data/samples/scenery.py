"""What stands around the cars: sky, ground, houses, trees, poles, people and street furniture."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import cv2
import numpy as np

from surgery.data.samples.canvas import (
    PAVEMENT,
    ROAD,
    VEGETATION,
    Array,
    Canvas,
    Colour,
)
from surgery.data.samples.vehicles import Light

Rng = np.random.Generator


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


def draw_sky(canvas: Canvas, rng: Rng, top: Colour, low: Colour, cloud: Colour, cover: float) -> None:
    """Fill the sky from `top` to `low`, with clouds over a share of it."""
    high, width = int(canvas.camera.horizon) + 2, canvas.camera.width
    rows = np.linspace(0, 1, high, dtype=np.float32)[:, None, None]
    sky = np.asarray(top, np.float32) * (1 - rows) + np.asarray(low, np.float32) * rows
    field = np.zeros((high, width), np.float32)
    for cells, weight in ((3, 0.45), (6, 0.3), (13, 0.17), (27, 0.08)):
        noise = rng.random((cells, cells), dtype=np.float32)
        field += np.float32(weight) * cv2.resize(noise, (width, high), interpolation=cv2.INTER_CUBIC)
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
    coarse_wear = _surface(half_x, half_z, rng) + _repairs(half_x, half_z, street, rng)
    wear: Array = cv2.resize(coarse_wear, x.shape[::-1])
    shade = cv2.resize(_shade(half_x, half_z, street, rng, shade_from), x.shape[::-1])
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
def noise_tiles() -> tuple[Array, Array]:
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
    fine, coarse = noise_tiles()
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
    shade: Array = (1 - 0.48 * np.clip(depth, 0, 1)).astype(np.float32)
    return shade
