"""A camera over a street, and a canvas that keeps picture, mask and light in step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Colour = tuple[float, ...]
"""RGB, 0–255."""
Tone = Sequence[float] | NDArray[Any]
"""RGB before light and air: any three numbers."""
Array = NDArray[Any]
Pixels = NDArray[np.uint8]

CLASSES = (
    "sky",
    "building",
    "road",
    "pavement",
    "vegetation",
    "pole",
    "clutter",
    "pedestrian",
    "car",
    "unlabelled",
)
SKY, BUILDING, ROAD, PAVEMENT, VEGETATION, POLE, CLUTTER, PEDESTRIAN, CAR, VOID = range(10)

SCALE = 2
"""Pictures are drawn at twice their size and averaged down."""
NEAR_M = 1.2
"""Nothing nearer to the camera than this is drawn, metres."""
_SHIFT = 4  # fractional bits of OpenCV's drawing coordinates


@dataclass(frozen=True)
class Camera:
    """A pinhole camera that looks along a street: x to the right, y up, z ahead, metres."""

    width: int
    """Width of the canvas in pixels."""
    height: int
    """Height of the canvas in pixels."""
    focal: float
    """Focal length in pixels."""
    horizon: float
    """Row of the horizon in pixels."""
    centre: float
    """Column of the vanishing point in pixels."""
    above_m: float
    """Height of the camera above the road."""
    bend: float
    """Sideways drift of the street per squared metre ahead, 1/m."""

    def project(self, points: object) -> Array:
        """Return pixels (k, 2) of points (k, 3) in metres."""
        xyz = np.asarray(points, np.float32).reshape(-1, 3)
        z = np.maximum(xyz[:, 2], NEAR_M)
        pixels = np.empty((len(xyz), 2), np.float32)
        pixels[:, 0] = self.centre + self.focal * (xyz[:, 0] / z + self.bend * z)
        pixels[:, 1] = self.horizon + self.focal * (self.above_m - xyz[:, 1]) / z
        return pixels

    def scale(self, z: float) -> float:
        """Return pixels per metre at a distance."""
        return self.focal / max(z, NEAR_M)

    def ground(self) -> tuple[int, Array, Array]:
        """Return (first row below the horizon, x, z) of the ground; x, z (rows, width), metres."""
        first = int(np.ceil(self.horizon)) + 1
        rows = np.arange(first, self.height, dtype=np.float32) + 0.5
        depth = self.focal * self.above_m / (rows - self.horizon)
        z = np.repeat(depth[:, None], self.width, axis=1)  # (rows,) -> (rows, width)
        columns = np.arange(self.width, dtype=np.float32)[None, :] + 0.5
        x = (columns - self.centre) * z / self.focal - self.bend * z * z
        return first, x, z


class Canvas:
    """Picture, mask and light of one scene; whatever is drawn covers what lies behind in all."""

    def __init__(self, camera: Camera, haze: Colour, haze_m: float) -> None:
        shape = (camera.height, camera.width)
        self.camera = camera
        self.image: Pixels = np.zeros((*shape, 3), np.uint8)
        self.mask: Pixels = np.full(shape, SKY, np.uint8)
        self.glow: Pixels = np.zeros((*shape, 3), np.uint8)
        self.lamps: list[tuple[float, float, float, Colour]] = []
        self.haze = haze
        self.haze_m = haze_m

    def tint(self, colour: Tone, z: float, light: float = 1.0) -> Colour:
        """Return a colour under some light, paled by the air in between."""
        clear = math.exp(-z / self.haze_m)
        r, g, b = (
            min(max(float(c) * light * clear + far * (1 - clear), 0.0), 255.0)
            for c, far in zip(list(colour), self.haze, strict=True)
        )
        return r, g, b

    def polygon(self, points: Array, colour: Colour, label: int | None, glow: Colour = (0, 0, 0)) -> None:
        """Fill a polygon of pixels (k, 2); a detail has no label and keeps the one below it."""
        fixed = _fixed(points)
        cv2.fillPoly(self.image, [fixed], colour, shift=_SHIFT)
        cv2.fillPoly(self.glow, [fixed], glow, shift=_SHIFT)
        if label is not None:
            cv2.fillPoly(self.mask, [fixed], label, shift=_SHIFT)

    def face(
        self,
        points: object,
        colour: Tone,
        label: int | None,
        light: float = 1.0,
        glow: Colour = (0, 0, 0),
    ) -> None:
        """Fill a polygon of points (k, 3) in metres."""
        xyz = np.asarray(points, np.float32).reshape(-1, 3)
        z = float(xyz[:, 2].sum()) / len(xyz)
        self.polygon(self.camera.project(xyz), self.tint(colour, z, light), label, glow)

    def disc(
        self,
        centre: Sequence[float],
        radius: float,
        colour: Colour,
        label: int | None,
        glow: Colour = (0, 0, 0),
    ) -> None:
        """Fill a circle, in pixels."""
        x, y = _fixed(np.asarray(centre, np.float32)).tolist()
        size = max(int(radius * (1 << _SHIFT)), 8)
        cv2.circle(self.image, (x, y), size, colour, -1, shift=_SHIFT)
        cv2.circle(self.glow, (x, y), size, glow, -1, shift=_SHIFT)
        if label is not None:
            cv2.circle(self.mask, (x, y), size, label, -1, shift=_SHIFT)

    def darken(self, points: Array, factor: float) -> None:
        """Multiply the picture inside a polygon of pixels (k, 2); labels stay."""
        left, top = np.floor(np.maximum(points.min(0), 0)).astype(int)
        limit = np.asarray([self.camera.width, self.camera.height])
        right, bottom = np.ceil(np.minimum(points.max(0), limit)).astype(int)
        if right <= left or bottom <= top:
            return
        inside = np.zeros((bottom - top, right - left), np.uint8)
        moved = points - np.asarray([left, top], np.float32)
        cv2.fillPoly(inside, [_fixed(moved)], 1, shift=_SHIFT)
        part = self.image[top:bottom, left:right]
        where = inside.astype(bool)
        part[where] = (part[where] * np.float32(factor)).astype(np.uint8)

    def texture(self, points: object, picture: Pixels, glow: Pixels, label: int, light: float) -> None:
        """Stretch a picture (h, w, 3) over a quad (4, 3) in metres, from its top left clockwise."""
        xyz = np.asarray(points, np.float32).reshape(4, 3)
        corners = self.camera.project(xyz)
        left, top = np.floor(np.maximum(corners.min(0), 0)).astype(int)
        limit = np.asarray([self.camera.width, self.camera.height])
        right, bottom = np.ceil(np.minimum(corners.max(0), limit)).astype(int)
        if right - left < 1 or bottom - top < 1:
            return
        h, w = picture.shape[:2]
        source = np.asarray([[0, 0], [w, 0], [w, h], [0, h]], np.float32)
        moved = (corners - np.asarray([left, top])).astype(np.float32)
        matrix = cv2.getPerspectiveTransform(source, moved)
        size = (int(right - left), int(bottom - top))
        inside = np.zeros(size[::-1], np.uint8)
        cv2.fillPoly(inside, [_fixed(moved)], 1, shift=_SHIFT)
        where = inside.astype(bool)
        box = (slice(top, bottom), slice(left, right))
        warped = cv2.warpPerspective(
            picture, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        clear = float(np.exp(-xyz[:, 2].mean() / self.haze_m))
        far = np.asarray(self.haze, np.float32) * np.float32(1 - clear)
        lit = warped[where] * np.float32(light * clear) + far  # (pixels inside, 3)
        self.image[box][where] = np.clip(lit, 0, 255).astype(np.uint8)
        shine = cv2.warpPerspective(glow, matrix, size, flags=cv2.INTER_LINEAR)
        self.glow[box][where] = shine[where]
        self.mask[box][where] = label


def _fixed(points: Array) -> NDArray[np.int32]:
    # OpenCV draws with 16-bit whole coordinates; what lies far outside may be pulled in.
    fixed: NDArray[np.int32] = np.rint(np.minimum(np.maximum(points, -8000), 8000) * (1 << _SHIFT)).astype(
        np.int32
    )
    return fixed
