"""Street scenes: what stands where on a street, drawn with its exact mask, by day or by night."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from surgery.artifact.errors import ConfigError
from surgery.data.samples.canvas import SCALE, VOID, Camera, Canvas, Pixels
from surgery.data.samples.furniture import (
    draw_bench,
    draw_hedge,
    draw_hoarding,
    draw_lamp,
    draw_person,
    draw_sign,
    draw_tree,
)
from surgery.data.samples.houses import draw_far_end, draw_houses
from surgery.data.samples.light import choose_weather, develop
from surgery.data.samples.scenery import Street, draw_ground, draw_sky
from surgery.data.samples.vehicles import Light, Place, draw_box, draw_car

DOMAINS: tuple[str, ...] = ("day", "night")
Rng = np.random.Generator


def draw_street(
    seed: int | tuple[int, ...], domain: str = "day", size: tuple[int, int] = (320, 240)
) -> tuple[Pixels, Pixels]:
    """Draw one street scene.

    Args:
        seed: Decides the scene. The same seed by day and by night is the same street with the same
            things on it, so that their masks are equal.
        domain: "day" or "night".
        size: (width, height) of the picture in pixels.

    Returns:
        Picture (h, w, 3) RGB uint8, and mask (h, w) uint8 of indices into `CLASSES`.

    Raises:
        ConfigError: If there is no such domain, or no picture of such a size.
    """
    if domain not in DOMAINS:
        raise ConfigError(f"domain {domain!r}: there is day and night", "choose one of them")
    if min(size) < 64 or max(size) > 2048:
        raise ConfigError(f"size {size[0]}x{size[1]}: 64 to 2048 pixels can be drawn", "320x240")
    numbers = [seed] if isinstance(seed, int) else list(seed)
    plan = np.random.default_rng([1, *numbers])
    night = domain == "night"
    weather = choose_weather(plan, night)
    light = weather.light
    camera = _place_camera(plan, size)
    canvas = Canvas(camera, weather.haze, haze_m=float(plan.uniform(160, 450)))
    street = _plan_street(plan)
    draw_sky(canvas, plan, weather.top, weather.low, weather.cloud, weather.cover)
    lit = 0.4 if night else 0.0
    draw_far_end(canvas, plan, light, lit)
    draw_ground(canvas, plan, street, light, weather.shade_from)
    for way in (-1, 1):
        draw_houses(canvas, plan, street, light, way, lit)
    for _, draw in sorted(_Things(plan, street, light, night).place(), key=lambda thing: -thing[0]):
        draw(canvas)
    if plan.random() < 0.4 and street.lane == 0:
        _draw_bonnet(canvas, plan)
    picture = develop(canvas, np.random.default_rng([2, int(night), *numbers]), night, size)
    mask = np.ascontiguousarray(canvas.mask[SCALE // 2 :: SCALE, SCALE // 2 :: SCALE])
    return picture, mask


def _place_camera(rng: Rng, size: tuple[int, int]) -> Camera:
    width, height = size[0] * SCALE, size[1] * SCALE
    return Camera(
        width=width,
        height=height,
        focal=width * float(rng.uniform(0.72, 1.05)),
        horizon=height * float(rng.uniform(0.38, 0.5)),
        centre=width * float(rng.uniform(0.36, 0.64)),
        above_m=float(rng.uniform(1.25, 1.9)),
        bend=float(rng.normal(0, 0.0012)),
    )


def _plan_street(rng: Rng) -> Street:
    lane = float(rng.uniform(3.0, 3.6))
    parking = 2.2 if rng.random() < 0.75 else 0.3
    pavement = float(rng.uniform(1.8, 3.6))
    eye = 0.0  # how far the camera is to the right of its lane
    if rng.random() < 0.3:  # somebody on the pavement took the picture
        eye = 0.5 * lane + parking + pavement * float(rng.uniform(0.25, 0.7))
    return Street(
        left=-(1.5 * lane + parking) - eye,
        right=0.5 * lane + parking - eye,
        lane=-eye,
        other=-lane - eye,
        pavement=pavement,
        verge=bool(rng.random() < 0.3),
        crossing=float(rng.uniform(7, 20)) if rng.random() < 0.3 else None,
        side=float(rng.uniform(14, 40)) if rng.random() < 0.45 else None,
    )


Thing = tuple[float, Callable[[Canvas], None]]


class _Things:
    """Chooses what stands where on a street; what takes room on the road never overlaps."""

    def __init__(self, rng: Rng, street: Street, light: Light, night: bool) -> None:
        self.rng, self.street, self.light, self.night = rng, street, light, night
        self.things: list[Thing] = []
        self.taken: list[tuple[float, float, float, float]] = []

    def place(self) -> list[Thing]:
        """Return (nearest point in metres ahead, how to draw it), in no order."""
        if self.rng.random() > 0.07:
            self.drive()
            for way in (-1, 1):
                self.park(way)
            if self.street.side is not None and self.rng.random() < 0.6:
                self.cross(self.street.side)
        for way in (-1, 1):
            self.line_pavement(way)
        return self.things

    def add(self, z: float, draw: Callable[..., None], *args: Any, **options: Any) -> None:
        x = args[0].x if isinstance(args[0], Place) else args[0]
        if abs(x) < 0.6 and z < 8:  # it would stand before the lens
            return
        # Each thing draws from its own generator, so that the order of drawing changes nothing.
        own = np.random.default_rng(int(self.rng.integers(2**31)))
        self.things.append((z, lambda canvas: draw(canvas, own, *args, **options)))

    def car(self, x: float, z: float, yaw: float, moving: bool) -> None:
        along = abs(np.cos(yaw)) > 0.7
        half_x, half_z = (1.0, 2.5) if along else (2.5, 1.0)
        box = (x - half_x, x + half_x, z - half_z - 0.4, z + half_z + 0.4)
        if self.overlaps(box) or z - half_z < 3.2:
            return
        self.taken.append(box)
        starting = bool(self.rng.random() < 0.1)
        lit = self.night and (moving or starting)
        self.add(z - half_z, draw_car, Place(x, z, yaw), self.light, beams=lit)

    def overlaps(self, box: tuple[float, float, float, float]) -> bool:
        left, right, near, far = box
        return any(
            other[0] < right and left < other[1] and other[2] < far and near < other[3]
            for other in self.taken
        )

    def drive(self) -> None:
        rng, lane, other = self.rng, self.street.lane, self.street.other
        if rng.random() < 0.65:
            self.car(lane + rng.normal(0.1, 0.25), rng.uniform(6.5, 28), rng.normal(0, 0.03), True)
        for _ in range(int(rng.integers(0, 4))):
            x = other + rng.normal(0, 0.3)
            self.car(x, rng.uniform(7, 55), np.pi + rng.normal(0, 0.04), True)
        for _ in range(int(rng.integers(0, 3))):
            self.car(lane + rng.normal(0.1, 0.25), rng.uniform(22, 60), rng.normal(0, 0.03), True)

    def park(self, way: int) -> None:
        rng = self.rng
        kerb = self.street.right if way > 0 else self.street.left
        if rng.random() < 0.22:
            return
        filled, z = rng.uniform(0.35, 0.95), rng.uniform(4.5, 9)
        while z < 55:
            if rng.random() < filled:
                yaw = 0.0 if rng.random() < (0.85 if way > 0 else 0.25) else np.pi
                half_up = way * (1.0 if rng.random() < 0.08 else 0.0)
                self.car(kerb - way * 1.08 + half_up, z, yaw + rng.normal(0, 0.03), False)
            elif rng.random() < 0.3:
                self.box(kerb - way * 1.1, z)
            z += rng.uniform(5.3, 7.5)

    def cross(self, side: float) -> None:
        rng = self.rng
        for z in (side + 2.2, side + 5.8):
            if rng.random() < 0.6:
                yaw = (1 if z > side + 4 else -1) * np.pi / 2 + rng.normal(0, 0.08)
                self.car(rng.uniform(-9, 9), z, yaw, True)

    def box(self, x: float, z: float) -> None:
        box = (x - 1.2, x + 1.2, z - 2.4, z + 2.4)
        if self.overlaps(box) or z < 6.5:
            return
        self.taken.append(box)
        yaw = float(self.rng.choice([0, np.pi / 2])) + float(self.rng.normal(0, 0.05))
        self.add(z - 2.1, draw_box, Place(x, z, yaw), self.light)

    def line_pavement(self, way: int) -> None:
        rng, street = self.rng, self.street
        kerb = street.right if way > 0 else street.left
        depth = street.pavement
        regular, phase = rng.uniform(14, 24), rng.uniform(0, 14)
        trees = rng.random() < 0.55
        for z in np.arange(4.5 + phase, 70, regular):
            x = kerb + way * 0.45
            self.add(z, draw_lamp, x, z, self.light, on=self.night)
            for ahead in (0.33, 0.67) if trees else ():
                tree = z + regular * ahead
                self.add(tree, draw_tree, x + way * 0.3, tree, self.light)
        bright = bool(rng.random() < 0.5)
        choices: list[tuple[float, Callable[..., None], float, dict[str, Any]]] = [
            (0.30, draw_person, 0.5, {}),
            (0.16, draw_sign, 0.2, {}),
            (0.14, draw_bench, 0.8, {}),
            (0.10, draw_hedge, 0.9, {}),
            (0.12, draw_hoarding, 0.8, {"lit": self.night and bright}),
        ]
        z = float(rng.uniform(4.5, 8))
        while z < 60:
            pick, total = float(rng.random()), 0.0
            for share, draw, inwards, options in choices:
                if total <= pick < total + share:
                    x = kerb + way * (0.15 + inwards * depth * float(rng.uniform(0.5, 1.0)))
                    self.add(z, draw, x, z, self.light, **options)
                total += share
            if pick > total and depth > 2.4:
                self.box(kerb + way * depth * 0.72, z)
            z += float(rng.uniform(1.5, 6.5))
        if rng.random() < 0.35:  # somebody crosses the road
            z = float(rng.uniform(7, 25))
            x = float(rng.uniform(street.left, street.right))
            if not self.overlaps((x - 0.4, x + 0.4, z - 0.4, z + 0.4)):
                self.add(z, draw_person, x, z, self.light)


def _draw_bonnet(canvas: Canvas, rng: Rng) -> None:
    """Draw the rim of the own car's bonnet; it belongs to no class that is learnt."""
    width, height = canvas.camera.width, canvas.camera.height
    t = np.linspace(0, 1, 25)
    rise = height * float(rng.uniform(0.03, 0.09))
    top = height - rise * (1 - (2 * t - 1) ** 4) - 1
    edge = np.stack([t * width, top], axis=1)
    ring = np.concatenate([edge, [[width, height + 4], [0, height + 4]]]).astype(np.float32)
    tone = float(rng.uniform(25, 150))
    canvas.polygon(ring, (tone, tone, tone * 1.04), VOID)
    down = np.asarray([0, rise])
    shine = np.concatenate([edge + 0.25 * down, (edge + 0.45 * down)[::-1]])
    canvas.polygon(shine.astype(np.float32), (tone + 30, tone + 32, tone + 36), None)
