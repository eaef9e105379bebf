"""A graph in 8-bit integers, for CPUs: calibrated on training images, its sensitive layers left in float."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from surgery.artifact.errors import ConfigError, DataError
from surgery.artifact.image import prepare_image, read_image
from surgery.artifact.manifest import Manifest
from surgery.data.table import Item
from surgery.data.targets import TargetSpec
from surgery.deliver.layers import Parts, spell_layer
from surgery.deliver.parity import spread
from surgery.deliver.quantise import LAYERS, find_ranges, quantise
from surgery.deliver.sensitivity import Trial, better_ranges, choose_layers, score_held
from surgery.train.interrupt import raise_if_requested
from surgery.train.reporting import Reporter

IMAGES = 96
"""Training images, evenly spread, that are used at most: two thirds to calibrate, one third held back."""
MAX_PIXELS = 640 * 640
"""Larger inputs in the image's own size are scaled down to it: ranges and effects hardly change."""


def write_int8(
    parts: Parts,
    manifest: Manifest,
    train: Sequence[Item],
    targets: TargetSpec,
    tolerance: float,
    report: Reporter,
    path: Path,
) -> dict[str, Any]:
    """Quantise a graph: weights to int8 by channel, activations to uint8 by range (QDQ, static).

    All layers are tried first. If that costs more than the tolerance on images that were held back, each
    layer is quantised alone and the change of the logits measured; as few as possible of those that change
    them most are then left in float. Only training images are used, so that val stays a judge.

    Args:
        parts: The float32 graph.
        manifest: What it takes and answers.
        train: Training images with their truth.
        targets: How their labels and masks map to the graph's classes.
        tolerance: Points that may be lost on the images held back (see `loss_points`).
        report: Where progress is shown.
        path: The file to write.

    Returns:
        For the manifest: `calibrated_on`, `held_back` images; `ranges`, `extremes` or `means` of the images';
        `layers` in all, `left_in_float` by name; `held_back_loss` in points.

    Raises:
        ConfigError: If no layer can be computed in integers.
        DataError: If there are fewer than two training images.
    """
    calibration, held = split(train)
    if manifest.input.size_rule == "native":
        limited = replace(manifest.input, max_pixels=min(manifest.input.max_pixels, MAX_PIXELS))
        manifest = replace(manifest, input=limited)
    kinds = {node.name: node.op_type for node in parts.model.graph.node}
    candidates = [name for name in parts.layers if name not in parts.last and kinds[name] in LAYERS]
    if not candidates:
        raise ConfigError("no layer of this network is computed in int8", "Export it with --precision fp16.")
    with tempfile.TemporaryDirectory(prefix="surgery-int8-") as folder, _quiet():
        onnx.save(parts.model, Path(folder) / "fp32.onnx")
        before = score_held(Path(folder) / "fp32.onnx", manifest, held, targets, report, "scoring fp32")
        trial = Trial(manifest, targets, held, before, Path(folder))
        found = find_ranges(parts, _read(calibration, manifest, report))
        name, ranges = better_ranges(parts, found, candidates, trial)
        chosen, loss = choose_layers(parts, ranges, candidates, trial, tolerance, report)
        onnx.save(quantise(parts, ranges, chosen), path)
    floats = [spell_layer(parts, layer) for layer in parts.layers if layer not in chosen]
    return {
        "calibrated_on": len(calibration),
        "held_back": len(held),
        "ranges": name,
        "layers": len(parts.layers),
        "left_in_float": floats,
        "held_back_loss": round(loss, 4),
    }


def split(train: Sequence[Item]) -> tuple[list[Item], list[Item]]:
    """Return the images to calibrate on and those held back, both evenly spread.

    Raises:
        DataError: If there are fewer than two.
    """
    if len(train) < 2:
        raise DataError(
            f"int8 is calibrated on training images; the data has {len(train)}, at least 2 are needed",
            "Say where the training's data is: --data DATA.",
        )
    chosen = [train[i] for i in spread(len(train), IMAGES)]
    held = chosen[1::3]
    return [item for k, item in enumerate(chosen) if k % 3 != 1], held


def _read(items: Sequence[Item], manifest: Manifest, report: Reporter) -> Iterator[np.ndarray]:
    """Yield the inputs of images, (1, h, w, 3), each loaded when it is asked for."""
    with report.task("calibrating on training images") as task:
        for done, item in enumerate(items):
            raise_if_requested()
            yield prepare_image(read_image(item.image), manifest.input)[None]
            task.update(done + 1, len(items))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantiser's advice, which it gives on the root logger, from the console."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
