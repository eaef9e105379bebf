"""Slim things and small things on a street: trees, lamps, signs, people, benches, hoardings."""

from __future__ import annotations

import numpy as np

from surgery.data.samples.bodies import PAINTS
from surgery.data.samples.canvas import (
    CLUTTER,
    PEDESTRIAN,
    POLE,
    VEGETATION,
    Canvas,
    Colour,
)
from surgery.data.samples.vehicles import Light

Rng = np.random.Generator
SODIUM: Colour = (255, 190, 110)
LED: Colour = (235, 240, 255)


def draw_tree(canvas: Canvas, rng: Rng, x: float, z: float, light: Light) -> None:
    """Draw a tree: a trunk, and a crown of leaves that are brighter towards the sun."""
    trunk = float(rng.uniform(1.8, 2.8))
    crown = float(rng.uniform(1.3, 2.5))
    thick = float(rng.uniform(0.12, 0.24))
    bark: Colour = (86, 70, 56)
    shadow_of(canvas, x, z, crown * 0.9)
    stem = [(x - thick, 0, z), (x - thick * 0.6, trunk + 0.6, z)]
    stem += [(x + thick * 0.6, trunk + 0.6, z), (x + thick, 0, z)]
    canvas.face(stem, bark, VEGETATION, light.ambient + 0.3 * light.direct)
    leaf = np.asarray([72, 104, 46]) + rng.normal(0, 14, 3)
    centre = np.asarray([x, trunk + crown * 0.9])
    scale = canvas.camera.scale(z)
    count = int(np.clip(scale * 3, 30, 300))
    angle, reach = rng.uniform(0, 2 * np.pi, count), np.sqrt(rng.random(count))
    lumps = 1 + 0.16 * np.sin(angle * int(rng.integers(3, 6)) + rng.uniform(0, 6))
    dx, dy = np.cos(angle) * reach * lumps * crown, np.sin(angle) * reach * lumps * crown * 1.05
    toward = (dx * light.sun[0] + dy * max(light.sun[1], 0.3)) / crown
    order = np.argsort(toward + rng.normal(0, 0.35, count))
    heart = canvas.camera.project([(centre[0], centre[1], z)])[0]
    dark = canvas.tint(leaf * 0.75, z, light.ambient)
    canvas.disc(heart, 0.55 * crown * scale, dark, VEGETATION)
    radius = crown * rng.uniform(0.07, 0.19, count) * scale
    spots = np.stack([centre[0] + dx, centre[1] + dy, np.full(count, z)], axis=1)
    spots = canvas.camera.project(spots)
    for i in order.tolist():
        bright = light.ambient + light.direct * float(np.clip(0.35 + 0.5 * toward[i], 0.05, 1))
        colour = canvas.tint(leaf * float(rng.uniform(0.82, 1.15)), z, bright)
        canvas.disc(spots[i], float(radius[i]), colour, VEGETATION)


def draw_hedge(canvas: Canvas, rng: Rng, x: float, z: float, light: Light) -> None:
    """Draw a clipped bush, as large as a car."""
    wide, high = float(rng.uniform(1.2, 2.6)), float(rng.uniform(0.8, 1.4))
    leaf = np.asarray([58, 88, 44]) + rng.normal(0, 10, 3)
    scale = canvas.camera.scale(z)
    count = int(np.clip(scale * 1.5, 20, 140))
    px = x + wide * rng.uniform(-0.5, 0.5, count)
    py = high * np.sort(rng.random(count))
    spots = canvas.camera.project(np.stack([px, py, np.full(count, z)], axis=1))
    shadow_of(canvas, x, z, wide * 0.6)
    body = [(x - wide / 2, 0, z), (x - wide / 2, high * 0.8, z), (x + wide / 2, high * 0.8, z)]
    canvas.face([*body, (x + wide / 2, 0, z)], leaf, VEGETATION, light.ambient)
    for i in range(count):
        bright = light.ambient + light.direct * float(0.15 + 0.5 * py[i] / high)
        colour = canvas.tint(leaf * float(rng.uniform(0.8, 1.2)), z, bright)
        canvas.disc(spots[i], scale * float(rng.uniform(0.06, 0.15)), colour, VEGETATION)


def draw_lamp(canvas: Canvas, rng: Rng, x: float, z: float, light: Light, on: bool) -> None:
    """Draw a street lamp whose arm reaches over the road."""
    way = -1.0 if x > 0 else 1.0
    high, arm = float(rng.uniform(5.5, 8.0)), float(rng.uniform(1.0, 2.0))
    grey: Colour = (92, 96, 98)
    shade = light.ambient + 0.5 * light.direct
    shadow_of(canvas, x, z, 0.3)
    canvas.face(_bar(x, 0, x, high, z, 0.075), grey, POLE, shade)
    canvas.face(_bar(x, high, x + way * arm, high + 0.35, z, 0.05), grey, POLE, shade)
    tip = x + way * arm
    head = [(tip - 0.3, high + 0.42, z), (tip + 0.3, high + 0.42, z)]
    head += [(tip + 0.22, high + 0.26, z), (tip - 0.22, high + 0.26, z)]
    tone = SODIUM if rng.random() < 0.6 else LED
    canvas.face(head, (210, 208, 200), POLE, shade, glow=tone if on else (0, 0, 0))
    if on:
        canvas.lamps.append((tip, high + 0.3, z, tone))


def draw_sign(canvas: Canvas, rng: Rng, x: float, z: float, light: Light) -> None:
    """Draw a traffic sign, a traffic light or a bare post."""
    high = float(rng.uniform(2.1, 3.0))
    shade = light.ambient + 0.5 * light.direct
    canvas.face(_bar(x, 0, x, high, z, 0.045), (120, 122, 122), POLE, shade)
    kind = rng.random()
    scale = canvas.camera.scale(z)
    if kind < 0.5:
        spot = canvas.camera.project([(x, high, z)])[0]
        rim: Colour = (190, 30, 34) if rng.random() < 0.6 else (34, 70, 160)
        canvas.disc(spot, 0.32 * scale, canvas.tint(rim, z, shade), POLE)
        canvas.disc(spot, 0.22 * scale, canvas.tint((232, 232, 228), z, shade), None)
    elif kind < 0.8:
        canvas.face(_bar(x, high - 0.1, x, high + 0.8, z, 0.16), (38, 40, 42), POLE, shade)
        shown = int(rng.integers(3))
        tones: tuple[Colour, ...] = ((60, 220, 110), (250, 190, 40), (240, 40, 30))
        for i, tone in enumerate(tones):
            spot = canvas.camera.project([(x, high + 0.08 + 0.27 * i, z)])[0]
            bright = tone if i == shown else tuple(0.25 * c for c in tone)
            canvas.disc(spot, 0.1 * scale, bright, None, glow=tone if i == shown else (0, 0, 0))


def draw_person(canvas: Canvas, rng: Rng, x: float, z: float, light: Light) -> None:
    """Draw somebody who walks or stands."""
    tall = float(rng.uniform(1.5, 1.9))
    shade = light.ambient + 0.55 * light.direct
    coat = np.asarray(PAINTS[int(rng.integers(len(PAINTS)))]) + rng.normal(0, 12, 3)
    legs = np.asarray([46, 50, 66]) * rng.uniform(0.6, 1.8)
    skin = np.asarray([206, 164, 136]) * rng.uniform(0.5, 1.05)
    stride = float(rng.uniform(0.02, 0.26))
    hip, neck = tall * 0.5, tall * 0.84
    shadow_of(canvas, x, z, 0.32)
    for way in (-1, 1):
        canvas.face(
            _bar(x + way * stride, 0.02, x + way * 0.07, hip + 0.1, z, 0.085),
            legs,
            PEDESTRIAN,
            shade,
        )
        canvas.face(
            _bar(x + way * (0.16 + stride * 0.7), hip, x + way * 0.2, neck - 0.08, z, 0.06),
            coat * 0.85, PEDESTRIAN, shade,
        )  # fmt: skip
    torso = [(x - 0.19, hip - 0.06, z), (x - 0.24, neck - 0.08, z), (x - 0.1, neck, z)]
    torso += [(x + 0.1, neck, z), (x + 0.24, neck - 0.08, z), (x + 0.19, hip - 0.06, z)]
    canvas.face(torso, coat, PEDESTRIAN, shade)
    scale = canvas.camera.scale(z)
    spot = canvas.camera.project([(x, tall - 0.13, z)])[0]
    canvas.disc(spot, 0.125 * scale, canvas.tint(skin, z, shade), PEDESTRIAN)
    hair = spot - np.asarray([0, 0.05 * scale], np.float32)
    canvas.disc(hair, 0.115 * scale, canvas.tint((52, 40, 32), z, shade), PEDESTRIAN)


def draw_bench(canvas: Canvas, rng: Rng, x: float, z: float, light: Light) -> None:
    """Draw a bench, a bin or a bicycle rack."""
    shade = light.ambient + 0.5 * light.direct
    wood = np.asarray([134, 96, 62]) * rng.uniform(0.7, 1.2)
    shadow_of(canvas, x, z, 0.7)
    if rng.random() < 0.5:
        for high in (0.45, 0.68, 0.86):
            canvas.face(_bar(x - 0.8, high, x + 0.8, high, z, 0.05), wood, CLUTTER, shade)
        for leg in (-0.7, 0.7):
            canvas.face(_bar(x + leg, 0, x + leg, 0.9, z, 0.04), (60, 60, 62), CLUTTER, shade)
    else:
        tone = PAINTS[int(rng.integers(len(PAINTS)))]
        body = [(x - 0.3, 0.1, z), (x - 0.34, 1.0, z), (x + 0.34, 1.0, z), (x + 0.3, 0.1, z)]
        canvas.face(body, tone, CLUTTER, shade)
        canvas.face(_bar(x - 0.38, 1.03, x + 0.38, 1.03, z, 0.06), (50, 52, 54), CLUTTER, shade)
        for wheel in (-0.22, 0.22):
            spot = canvas.camera.project([(x + wheel, 0.1, z)])[0]
            size = 0.1 * canvas.camera.scale(z)
            canvas.disc(spot, size, canvas.tint((24, 24, 26), z), CLUTTER)


def draw_hoarding(canvas: Canvas, rng: Rng, x: float, z: float, light: Light, lit: bool) -> None:
    """Draw a billboard in the colours of cars, at their height or above."""
    low, wide = float(rng.uniform(0.5, 1.6)), float(rng.uniform(1.4, 2.8))
    high = low + wide * float(rng.uniform(0.45, 0.7))
    shade = light.ambient + 0.6 * light.direct
    for leg in (-0.4, 0.4):
        canvas.face(_bar(x + leg * wide, 0, x + leg * wide, high, z, 0.05), (80, 82, 84), CLUTTER, shade)

    def panel(x0: float, y0: float, x1: float, y1: float, tone: Colour, label: int | None) -> None:
        left, right = x + (x0 - 0.5) * wide, x + (x1 - 0.5) * wide
        down, up = low + y0 * (high - low), low + y1 * (high - low)
        box = [(left, down, z), (left, up, z), (right, up, z), (right, down, z)]
        glow = tuple(0.45 * c for c in tone) if lit else (0.0, 0.0, 0.0)
        canvas.face(box, tone, label, shade, glow=glow)

    first, second = (PAINTS[int(i)] for i in rng.integers(len(PAINTS), size=2))
    panel(0, 0, 1, 1, (222, 220, 214), CLUTTER)
    panel(0.04, 0.06, 0.96, 0.94, first, None)
    panel(0.1, 0.45, float(rng.uniform(0.4, 0.9)), 0.8, second, None)
    for line in range(int(rng.integers(1, 4))):
        panel(
            0.12,
            0.12 + 0.1 * line,
            float(rng.uniform(0.5, 0.9)),
            0.17 + 0.1 * line,
            (235, 232, 224),
            None,
        )


def shadow_of(canvas: Canvas, x: float, z: float, radius: float) -> None:
    """Darken a flat ellipse on the ground under something."""
    angles = np.linspace(0, 2 * np.pi, 17)[:-1]
    for grow, dark in ((1.0, 0.82), (0.6, 0.75)):
        ring = [(x + grow * radius * np.cos(t), 0, z + grow * radius * np.sin(t)) for t in angles]
        canvas.darken(canvas.camera.project(ring), dark)


def _bar(
    x0: float, y0: float, x1: float, y1: float, z: float, half: float
) -> list[tuple[float, float, float]]:
    """Return a quad of a given half width around a line, facing the camera."""
    long = max(float(np.hypot(x1 - x0, y1 - y0)), 1e-6)
    nx, ny = -(y1 - y0) / long * half, (x1 - x0) / long * half
    ends = ((x0 + nx, y0 + ny), (x1 + nx, y1 + ny), (x1 - nx, y1 - ny), (x0 - nx, y0 - ny))
    return [(x, y, z) for x, y in ends]
