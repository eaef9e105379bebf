"""Answer out: logits to labels, to an index mask, and to pictures and numbers of it."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from surgery.artifact.errors import StoreError, SurgeryError
from surgery.artifact.image import crop_box
from surgery.artifact.manifest import InputSpec, OutputSpec

Floats = NDArray[np.floating[Any]]
Mask = NDArray[np.uint8] | NDArray[np.uint16]

# Okabe & Ito 2008, "Color Universal Design", without black; first what shows best on streets.
_COLOURS = (
    (213, 94, 0),
    (86, 180, 233),
    (240, 228, 66),
    (0, 158, 115),
    (204, 121, 167),
    (0, 114, 178),
    (230, 159, 0),
)
_MOST = 80
"""Largest exponent that is taken: exp stays finite, and what is lost is far below a 255th."""


class LabelAnswer(TypedDict):
    """One class of a classification and how probable it is."""

    label: str
    probability: float
    present: NotRequired[bool]
    """Only where an image may have several labels: whether this is one of them."""


class BoxAnswer(TypedDict):
    """One connected piece of a class; the box is [x0, y0, x1, y1] in pixels, ends exclusive."""

    label: str
    box: list[int]
    pixels: int


def softmax(logits: Floats, axis: int = -1) -> Floats:
    """Return probabilities that sum to 1 along `axis`, same shape."""
    shifted = np.exp(logits - logits.max(axis=axis, keepdims=True))
    total: Floats = shifted / shifted.sum(axis=axis, keepdims=True)
    return total


def sigmoid(logits: Floats) -> Floats:
    """Return 1 / (1 + exp(-logits)), same shape, without overflow."""
    small = np.exp(-np.abs(logits))
    result: Floats = np.where(logits >= 0, 1 / (1 + small), small / (1 + small))
    return result


def label_probabilities(logits: Floats, output: OutputSpec) -> Floats:
    """Return the probability of every class, float64.

    The logits are divided by the model's temperature first (Guo et al. 2017, arXiv:1706.04599,
    section 4.2). No label changes by it: the order of the classes, and on which side of one half each
    lies, stay the same.

    Args:
        logits: Shape (c,) or (n, c).
        output: What they mean.
    """
    cooled = logits.astype(np.float64) / output.temperature
    return sigmoid(cooled) if output.multilabel else softmax(cooled)


def answer_labels(logits: Floats, output: OutputSpec) -> list[LabelAnswer]:
    """Return every class with its probability, the most probable first.

    Where an image may have several labels, each says whether it is present: its logit is positive, so its
    probability over one half.

    Args:
        logits: Shape (c,), one per class.
        output: What they mean.

    Raises:
        StoreError: If the logits do not fit `output`.
        SurgeryError: If a logit is not finite.
    """
    _check(logits, output, dimensions=1)
    shares = label_probabilities(logits, output)
    # By the logits: probabilities that are 1 but for rounding would tie.
    order = np.argsort(-logits, kind="stable")
    answers: list[LabelAnswer] = [
        {"label": output.classes[i], "probability": float(shares[i])} for i in order
    ]
    if output.multilabel:
        for answer, i in zip(answers, order, strict=True):
            answer["present"] = bool(logits[i] > 0)
    return answers


def answer_mask(logits: Floats, size: tuple[int, int], output: OutputSpec) -> Mask:
    """Return the index mask of an image in the image's own size.

    Args:
        logits: Shape (c, h, w), float32.
        size: The image's (width, height); the logits are resized to it bilinearly.
        output: What the logits mean.

    Returns:
        Shape (height, width), values from `output.mask_values`; uint8, or uint16 if one exceeds
        255. Among equal logits the first class wins.

    Raises:
        StoreError: If the logits do not fit `output`.
        SurgeryError: If a logit is not finite.
    """
    _check(logits, output, dimensions=3)
    logits = np.ascontiguousarray(logits, np.float32)
    winner: Mask
    if output.activation == "sigmoid":
        winner = (_resize(logits[0], size) > 0).view(np.uint8)
    else:
        winner = _argmax(logits, size)
    values = np.asarray(output.mask_values)
    if np.array_equal(values, np.arange(len(values))) and len(values) <= 256:
        return winner
    table = values.astype(np.uint16 if values.max() > 255 else np.uint8)
    return cast(Mask, table[winner])


def mask_pixels(mask: Mask, output: OutputSpec) -> dict[str, float]:
    """Return each class's share of the pixels of an index mask (h, w); 0.0 where there is none."""
    named = zip(output.classes, output.mask_values, strict=True)
    return {name: int(np.count_nonzero(mask == value)) / mask.size for name, value in named}


def mask_boxes(mask: Mask, output: OutputSpec, min_pixels: int = 64) -> list[BoxAnswer]:
    """Return a box around each connected piece of each class but the rest, largest first.

    Args:
        mask: Index mask, shape (h, w).
        output: Names and values of the classes.
        min_pixels: Pieces of fewer pixels are left out.
    """
    boxes: list[BoxAnswer] = []
    for name, value in _drawn(output):
        piece = (mask == value).view(np.uint8)
        stats = cv2.connectedComponentsWithStats(piece, connectivity=8)[2]  # (pieces, 5)
        for x, y, width, height, pixels in stats[1:][stats[1:, 4] >= min_pixels].tolist():
            box = [x, y, x + width, y + height]
            boxes.append({"label": name, "box": box, "pixels": pixels})
    return sorted(boxes, key=lambda piece: -piece["pixels"])


def encode_mask_png(mask: Mask) -> bytes:
    """Return an index mask (h, w), uint8 or uint16, as a grey PNG that holds the same values."""
    done, data = cv2.imencode(".png", mask)
    if not done:
        raise SurgeryError(f"mask of {mask.dtype} {mask.shape} cannot be written as PNG")
    return data.tobytes()


def class_colours(output: OutputSpec) -> dict[str, tuple[int, int, int]]:
    """Return the RGB colour that each class but the rest is drawn in."""
    colours = {}
    for k, (name, _) in enumerate(_drawn(output)):
        red, green, blue = _COLOURS[k % len(_COLOURS)]
        # Seven hues can be told apart; further classes take them again, each round darker.
        shade = 0.7 ** (k // len(_COLOURS))
        colours[name] = (round(red * shade), round(green * shade), round(blue * shade))
    return colours


def draw_overlay(
    image: NDArray[np.uint8], mask: Mask, output: OutputSpec, opacity: float = 0.5
) -> NDArray[np.uint8]:
    """Return the image with the classes of its mask laid over it and their edges drawn.

    Args:
        image: RGB, shape (h, w, 3).
        mask: Index mask, shape (h, w).
        output: Names and values of the classes; the rest stays undrawn.
        opacity: Weight of the colour inside a class, 0–1; edges are drawn in full.

    Returns:
        RGB, shape (h, w, 3), uint8.
    """
    drawn = image.copy()
    colours = class_colours(output)
    width = 2 * max(1, round(min(mask.shape) / 400)) + 1
    for name, value in _drawn(output):
        inside = (mask == value).view(np.uint8)
        if not cv2.hasNonZero(inside):
            continue
        colour = np.array(colours[name])
        table = np.arange(256)[:, None] * (1 - opacity) + colour * opacity  # (256, 3)
        tinted = cv2.LUT(image, table.round().astype(np.uint8)[None])
        cv2.copyTo(tinted, inside, drawn)
        core = cv2.erode(inside, np.ones((width, width), np.uint8))
        drawn[(inside - core).view(bool)] = colour
    return drawn


def label_heat(cam: Floats, index: int, size: tuple[int, int], spec: InputSpec) -> NDArray[np.uint8]:
    """Return where in an image the evidence for a class lies, in the image's own size.

    Args:
        cam: Class activation map of the image, shape (c, h', w').
        index: The class.
        size: The image's (width, height).
        spec: How the image became the input. What the input does not show has no heat.

    Returns:
        Shape (height, width): 255 where the evidence is largest, 0 where there is none or it speaks against
        the class; in between in proportion, bilinearly.
    """
    evidence = np.maximum(cam[index].astype(np.float32), 0)
    left, top, right, bottom = crop_box(size, spec)
    rows = _interpolation(size[1], top, bottom, evidence.shape[0])
    columns = _interpolation(size[0], left, right, evidence.shape[1])
    heat = rows @ (evidence / max(float(evidence.max()), np.finfo(np.float32).tiny)) @ columns.T
    return cast(NDArray[np.uint8], np.rint(heat * 255).astype(np.uint8))


def mask_heat(logits: Floats, index: int, size: tuple[int, int], output: OutputSpec) -> NDArray[np.uint8]:
    """Return the probability of a class at every pixel of an image, 255 for 1.

    It is that of the resized logits, as `answer_mask` decides by them.

    Args:
        logits: Shape (c, h, w).
        index: The class, in the order of `output.classes`.
        size: The image's (width, height).
        output: What the logits mean.

    Returns:
        Shape (height, width).
    """
    _check(logits, output, dimensions=3)
    logits = np.ascontiguousarray(logits, np.float32)
    if output.activation == "sigmoid":
        share = sigmoid(_resize(logits[0] if index else -logits[0], size))
    else:
        wanted = _resize(logits[index], size)
        total = np.zeros_like(wanted)
        for plane in logits:  # one at a time: all of them resized would be c images of memory
            total += np.exp(np.minimum(_resize(plane, size) - wanted, _MOST))
        share = 1 / total
    return cast(NDArray[np.uint8], np.rint(share * 255).astype(np.uint8))


def _interpolation(pixels: int, low: float, high: float, cells: int) -> Floats:
    """Return weights (pixels, cells) that enlarge a line of cells, lying from `low` to `high`, bilinearly.

    Pixels whose centre lies outside get nothing.
    """
    centres = np.arange(pixels) + 0.5
    at = ((centres - low) / (high - low) * cells - 0.5).clip(0, cells - 1)  # in cells, the border repeated
    weights: Floats = np.maximum(1 - np.abs(at[:, None] - np.arange(cells)), 0).astype(np.float32)
    weights[(centres < low) | (centres > high)] = 0
    return weights


def _drawn(output: OutputSpec) -> list[tuple[str, int]]:
    """Return (name, mask value) of every class but the rest."""
    named = zip(output.classes, output.mask_values, strict=True)
    return [(name, value) for name, value in named if name != output.rest]


def _check(logits: Floats, output: OutputSpec, dimensions: int) -> None:
    if logits.ndim != dimensions or logits.shape[0] != output.logits:
        wanted = (output.logits, *("h", "w")[: dimensions - 1])
        raise StoreError(
            f"the graph answers logits of shape {logits.shape}, the manifest wants {wanted}",
            "export the model again: graph and manifest do not belong together.",
        )
    # The sum is finite only if every logit is, and costs no array of its own.
    if not np.isfinite(logits.sum(dtype=np.float32)):
        raise SurgeryError("the network answered logits that are not finite")


def _resize(plane: Floats, size: tuple[int, int]) -> Floats:
    """Resize one (h, w) plane bilinearly to size (width, height)."""
    if plane.shape == (size[1], size[0]):
        return plane
    return cast(Floats, cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR))


def _argmax(logits: Floats, size: tuple[int, int]) -> Mask:
    """Return the index of the largest logit per pixel, (c, h, w) -> (height, width).

    One plane at a time: numpy's argmax over the first axis is several times slower, and
    resizing all planes first needs c images of memory.
    """
    best = _resize(logits[0], size).copy()
    winner = np.zeros(best.shape, np.uint8 if len(logits) <= 256 else np.uint16)
    for k in range(1, len(logits)):
        plane = _resize(logits[k], size)
        larger = cv2.compare(plane, best, cv2.CMP_GT)
        cv2.copyTo(np.full_like(winner, k), larger, winner)
        cv2.max(best, plane, dst=best)
    return winner
