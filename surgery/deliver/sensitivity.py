"""Which layers bear 8-bit integers: found by measuring what each does to the answers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from surgery.artifact.image import prepare_image, read_image
from surgery.artifact.manifest import Manifest
from surgery.artifact.session import Floats, open_session
from surgery.data.table import Item
from surgery.data.targets import TargetSpec
from surgery.deliver.layers import Parts, spell_layer
from surgery.deliver.parity import spread
from surgery.deliver.quantise import Ranges, quantise
from surgery.deliver.scoring import Scored, score_graph
from surgery.train.interrupt import raise_if_requested
from surgery.train.reporting import Reporter

PROBES = 6
"""Images held back that each layer's effect on the logits is measured on."""


@dataclass(frozen=True)
class Trial:
    """What the choice of layers is judged by."""

    manifest: Manifest
    targets: TargetSpec
    held: Sequence[Item]
    before: Scored
    """Of the float32 graph on the images held back."""
    folder: Path
    """For graphs that are tried."""


def loss_points(before: Scored, after: Scored, multilabel: bool) -> float:
    """Return what a graph lost against another on the same images, in percentage points.

    That is the fall of the main score or, of labels, the share of images answered otherwise if that is more:
    on images that were trained on the score alone would hide much.
    """
    lost = before.scores.main - after.scores.main
    pairs = [
        (one.logits, other.logits)
        for one, other in zip(before.images, after.images, strict=True)
        if one.logits is not None and other.logits is not None
    ]
    if pairs:
        differ = [
            bool(((one > 0) != (other > 0)).any()) if multilabel else bool(one.argmax() != other.argmax())
            for one, other in pairs
        ]
        lost = max(lost, float(np.mean(differ)))
    return 100 * lost


def better_ranges(
    parts: Parts, found: dict[str, Ranges], layers: Sequence[str], trial: Trial
) -> tuple[str, Ranges]:
    """Return the ranges under which the logits change less: extremes are wide, means cut rare values off."""
    probes = _probe(trial)
    errors = {name: _logit_error(parts, each, layers, trial, probes) for name, each in found.items()}
    best = min(errors, key=lambda name: errors[name])
    return best, found[best]


def choose_layers(
    parts: Parts,
    ranges: Ranges,
    layers: Sequence[str],
    trial: Trial,
    tolerance: float,
    report: Reporter,
) -> tuple[set[str], float]:
    """Return the layers to quantise and what that loses on the images held back, in points.

    As many as stay within the tolerance, or where no number does, those that lose least.
    """
    lost: dict[int, float] = {}
    order: list[str] = []

    def fits(left: int) -> bool:
        path = trial.folder / "tried.onnx"
        onnx.save(quantise(parts, ranges, [name for name in layers if name not in order[:left]]), path)
        name = f"scoring int8 but for {left} layers" if left else "scoring int8"
        after = score_held(path, trial.manifest, trial.held, trial.targets, report, name)
        lost[left] = loss_points(trial.before, after, trial.manifest.output.multilabel)
        return lost[left] <= tolerance

    if not fits(0) and len(layers) > 1:
        report.line(f"all layers in int8 lose {lost[0]:.2f} points on images held back; measuring each layer")
        effects = measure_layers(parts, ranges, layers, trial, report)
        order = sorted(layers, key=lambda name: -effects[name])
        left = _least(fits, len(layers) - 1)
    else:
        left = 0
    if left is None:
        left = min(lost, key=lambda count: (lost[count], count))
    if left:
        names = ", ".join(spell_layer(parts, name) for name in order[:left])
        report.line(f"left in float: {names}; {lost[left]:.2f} points are lost now")
    return set(layers) - set(order[:left]), lost[left]


def _least(fits: Callable[[int], bool], most: int) -> int | None:
    """Return the least number from 1 to `most` that fits, by doubling and halving; None if none was seen."""
    low, high = 0, 1
    while not fits(high):
        if high == most:
            return None
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def measure_layers(
    parts: Parts, ranges: Ranges, layers: Sequence[str], trial: Trial, report: Reporter
) -> dict[str, float]:
    """Return each layer's effect: the logits' error where it alone is int8, as a share of their power."""
    probes = _probe(trial)
    effects = {}
    with report.task("measuring each layer") as task:
        for name in layers:
            raise_if_requested()
            effects[name] = _logit_error(parts, ranges, [name], trial, probes)
            task.update(len(effects), len(layers))
    return effects


def _probe(trial: Trial) -> list[tuple[np.ndarray, Floats]]:
    """Return inputs (1, h, w, 3) and what the float32 graph answers."""
    session = open_session(trial.folder / "fp32.onnx", "cpu")
    images = [read_image(trial.held[i].image) for i in spread(len(trial.held), PROBES)]
    inputs = [prepare_image(image, trial.manifest.input)[None] for image in images]
    return [(image, session.run(image)[0]) for image in inputs]


def _logit_error(
    parts: Parts,
    ranges: Ranges,
    layers: Collection[str],
    trial: Trial,
    probes: Sequence[tuple[np.ndarray, Floats]],
) -> float:
    """Return the squared error of the logits over their squares, all probes together."""
    path = trial.folder / "probe.onnx"
    onnx.save(quantise(parts, ranges, layers), path)
    session = open_session(path, "cpu")
    error = power = 0.0
    for image, wanted in probes:
        error += float(np.square(session.run(image)[0] - wanted, dtype=np.float64).sum())
        power += float(np.square(wanted, dtype=np.float64).sum())
    return error / max(power, 1e-12)


def score_held(
    path: Path, manifest: Manifest, items: Sequence[Item], targets: TargetSpec, report: Reporter, name: str
) -> Scored:
    with report.task(f"{name} on training images held back") as task:

        def show(done: int, total: int) -> None:
            task.update(done, total)
            raise_if_requested()

        return score_graph(open_session(path, "cpu"), manifest, items, targets, show)
