"""From a drawn canvas to a photograph: darkness, lamps and glare, exposure, blur and noise."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from surgery.data.samples.canvas import ROAD, SCALE, SKY, Array, Canvas, Colour, Pixels
from surgery.data.samples.vehicles import Light

Rng = np.random.Generator


@dataclass(frozen=True)
class Weather:
    """The sky and what it does to the street."""

    top: Colour
    """Colour overhead."""
    low: Colour
    """Colour at the horizon."""
    haze: Colour
    """Colour that far things fade to."""
    cloud: Colour
    """Colour of clouds."""
    cover: float
    """Share of the sky under clouds."""
    light: Light
    """Light on faces."""
    shade_from: int
    """Side whose houses shade the street; 0 without sun."""


def choose_weather(rng: Rng, night: bool) -> Weather:
    """Return the weather of a scene; the same numbers are drawn by day and by night."""
    cover, way = float(rng.uniform(0.25, 0.75)), int(rng.choice([-1, 1]))
    sunny = bool(rng.random() < 0.6)
    high = float(rng.uniform(0.35, 0.85))
    ahead = float(rng.uniform(-0.7, 0.4))
    side = way * float(np.sqrt(max(1 - high**2 - ahead**2, 0.05)))
    sun = np.asarray([side, high, ahead]) / np.linalg.norm([side, high, ahead])
    towards = (float(sun[0]), float(sun[1]), float(sun[2]))
    blue = rng.normal(0, 5, 3)
    if night:
        tint = np.asarray([26, 24, 34]) + 0.6 * blue
        return Weather(
            top=(8, 10, 20), low=_colour(tint), haze=(62, 62, 76), cloud=(34, 32, 40),
            cover=cover, light=Light((0.0, 1.0, 0.0), 0.86, 0.14), shade_from=0,
        )  # fmt: skip
    if sunny:
        return Weather(
            top=_colour(np.asarray([84, 138, 206]) + blue),
            low=_colour(np.asarray([188, 208, 226]) + blue), haze=(186, 200, 214),
            cloud=(242, 243, 244), cover=cover, light=Light(towards, 0.55, 0.62), shade_from=way,
        )  # fmt: skip
    return Weather(
        top=_colour(np.asarray([168, 176, 186]) + blue),
        low=_colour(np.asarray([206, 210, 214]) + blue), haze=(192, 196, 200),
        cloud=(222, 224, 226), cover=0.75, light=Light((0.0, 1.0, 0.0), 0.72, 0.2), shade_from=0,
    )  # fmt: skip


def develop(canvas: Canvas, rng: Rng, night: bool, size: tuple[int, int]) -> Pixels:
    """Return the photograph of a canvas.

    Args:
        canvas: What was drawn, `SCALE` times as large as the photograph.
        rng: Source of exposure, white balance, blur and noise.
        night: Only lamps give light.
        size: (width, height) of the photograph.

    Returns:
        RGB, shape (h, w, 3), uint8.
    """
    picture: Array = cv2.resize(canvas.image, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    if night:
        picture = _light_up(canvas, picture, rng, size)
    x = np.linspace(-1, 1, size[0], dtype=np.float32)[None, :]
    y = np.linspace(-1, 1, size[1], dtype=np.float32)[:, None]
    picture *= (1 - 0.12 * (x * x + y * y))[..., None]
    warm, green = rng.uniform(-0.07, 0.07), rng.uniform(-0.02, 0.02)
    balance = np.asarray([1 + warm, 1 + green, 1 - warm], np.float32)
    picture *= balance * np.float32(rng.uniform(0.85, 1.3) if night else rng.uniform(0.88, 1.25))
    blur = float(rng.uniform(0.0, 0.75))
    if blur > 0.25:
        picture = cv2.GaussianBlur(picture, (0, 0), blur)
    # Shot noise grows with the root of the light, read noise does not.
    read, shot = (rng.uniform(2.0, 6.0), 0.75) if night else (rng.uniform(0.8, 2.5), 0.25)
    grain = rng.standard_normal(picture.shape, dtype=np.float32)
    picture += grain * (np.float32(read) + np.float32(shot) * np.sqrt(np.maximum(picture, 0)))
    photograph: Pixels = np.clip(picture + 0.5, 0, 255).astype(np.uint8)
    return photograph


def _light_up(canvas: Canvas, picture: Array, rng: Rng, size: tuple[int, int]) -> Array:
    """Return the picture by the light of lamps alone, with their glare."""
    mask = cv2.resize(canvas.mask, size, interpolation=cv2.INTER_NEAREST)
    light = cv2.resize(_lamp_light(canvas, rng), size, interpolation=cv2.INTER_LINEAR)
    light[mask == SKY] = 1.0
    glow = cv2.resize(canvas.glow, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    unit = size[0] / 320
    small = cv2.resize(glow, (size[0] // 4, size[1] // 4), interpolation=cv2.INTER_AREA)
    halo = cv2.GaussianBlur(small, (0, 0), 1.2 * unit) + cv2.GaussianBlur(small, (0, 0), 5 * unit)
    streak = cv2.GaussianBlur(small, (0, 0), sigmaX=0.8 * unit, sigmaY=9 * unit)
    wet = np.float32(rng.uniform(0.1, 0.9)) * (mask == ROAD)[..., None]
    lit: Array = picture * light + glow
    lit += 0.55 * cv2.resize(halo, size, interpolation=cv2.INTER_LINEAR)
    lit += wet * cv2.resize(streak, size, interpolation=cv2.INTER_LINEAR)
    return lit


def _lamp_light(canvas: Canvas, rng: Rng) -> Array:
    """Return what light falls where, (h/8, w/8, 3), 1 being daylight."""
    camera, step = canvas.camera, 8 * SCALE
    columns = (np.arange(camera.width // step, dtype=np.float32) + 0.5) * step
    rows = ((np.arange(camera.height // step, dtype=np.float32) + 0.5) * step)[:, None]
    sky_light = np.asarray([0.75, 0.85, 1.2], np.float32) * np.float32(rng.uniform(0.09, 0.17))
    light = np.tile(sky_light, (*np.broadcast_shapes(rows.shape, columns.shape), 1))

    def add(x: float, y: float, wide: float, high: float, tone: Colour, amount: float) -> None:
        spread = ((columns - x) / wide) ** 2 + ((rows - y) / high) ** 2  # (rows, columns)
        pool = np.float32(amount) * np.exp(-0.5 * spread)[..., None]
        light[:] += pool * np.asarray(tone, np.float32) / 255

    for x, y, z, tone in canvas.lamps:
        (hx, hy), (_, gy) = camera.project([(x, y, z), (x, 0, z)]).tolist()
        reach = camera.scale(z)
        if y > 3:  # a street lamp: a cone down to the ground, and a pool there
            add(hx, (hy + gy) / 2, 2.6 * reach, 0.45 * abs(gy - hy), tone, 0.32)
            add(hx, gy, 4.0 * reach, 0.9 * reach, tone, 0.5)
        else:
            add(hx, gy, 1.6 * reach, 0.5 * reach, tone, 0.35)
    ahead = float(rng.uniform(0.35, 0.85))
    row = camera.horizon + camera.scale(11) * camera.above_m
    add(camera.centre, row, 0.24 * camera.width, 0.12 * camera.height, (255, 244, 220), ahead)
    # Film saturates: where many lamps meet it is bright, and no more.
    return 1.15 * (1 - np.exp(-light))


def _colour(values: np.ndarray) -> Colour:
    r, g, b = np.clip(values, 0, 255).tolist()
    return r, g, b
