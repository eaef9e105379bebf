"""A stored version in another precision: its graph written, judged on val, timed, and stored."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import surgery
from surgery.artifact.errors import ConfigError, DataError
from surgery.artifact.image import prepare_image, read_image
from surgery.artifact.manifest import Manifest
from surgery.artifact.session import Answer, Session, answer_image, open_session
from surgery.artifact.store import Store, StoredVersion
from surgery.data.loaders import iterate
from surgery.data.table import Item, Table
from surgery.data.targets import TargetSpec
from surgery.deliver.calibrate import gather, measure
from surgery.deliver.fp16 import write_fp16
from surgery.deliver.int8 import write_int8
from surgery.deliver.layers import read_parts
from surgery.deliver.package import Unsealed, Write, copy_files, now, write_json
from surgery.deliver.parity import spread
from surgery.deliver.scoring import Scored, Scoring, load_item
from surgery.deliver.speed import choose_served, measure_speed
from surgery.deliver.statistics import add_precision
from surgery.train.interrupt import raise_if_requested
from surgery.train.reporting import Reporter

TIMED_IMAGES = 5
"""Images of val, evenly spread, that speed is measured on."""


@dataclass(frozen=True)
class Compared:
    """What two graphs made of the same images."""

    fp32: Scored
    other: Scored
    equal: float
    """Share of labels, or of mask pixels, that agree."""
    max_difference: float
    """Largest |a - b| over all logits."""
    largest_logit: float

    @property
    def lost(self) -> float:
        """Percentage points of the main score that the other graph lost; negative if it gained."""
        return 100 * (self.fp32.scores.main - self.other.scores.main)


def export_precision(
    store: Store,
    parent: StoredVersion,
    precision: str,
    table: Table,
    targets: TargetSpec,
    tolerance: float,
    report: Reporter,
    write: Write | None = None,
) -> StoredVersion:
    """Write a version's float32 graph in another precision and store the result as the next version.

    Whatever the version was made in, the start is its float32 graph. A version that loses more than the
    tolerance is stored too, so that it can be looked at, and says so; it is not to be promoted.

    Args:
        store: Where the version goes.
        parent: The version.
        precision: `int8` or `fp16`.
        table: Its val judges; int8 is calibrated on its train.
        targets: How its labels and masks map to the model's classes.
        tolerance: Percentage points of the main score on val that may be lost.
        report: Where progress is shown.
        write: Adds files to the version before it is sealed.

    Raises:
        ConfigError: If the tolerance is negative.
        DataError: If val is empty, or train for int8.
        SurgeryError: If the graph cannot be written so.
    """
    if not 0 <= tolerance <= 100:
        raise ConfigError(f"--tolerance is {tolerance:g}; it lies in 0–100 percentage points")
    val = table.of("val")
    if not val:
        raise DataError(f"{table.root}: there is no image in split 'val' to judge {precision} by")
    known, file = parent.manifest, f"model.{precision}.onnx"
    with store.stage(parent.name) as staging:
        copy_files(parent, staging.path)
        fp32 = known.graphs.get("fp32", known.graph)
        parts = read_parts(staging.path / fp32, known.task)
        made: dict[str, Any] = {}
        if precision == "int8":
            train = table.of("train")
            made = write_int8(parts, known, train, targets, tolerance, report, staging.path / file)
        else:
            write_fp16(parts, staging.path / file)
        sessions = _open_both(staging.path, fp32, file, precision)
        device = sessions[1].device
        name = f"scoring {precision} and fp32 on val"
        found = compare_graphs(*sessions, known, val, targets, report, name)
        both = found.fp32, found.other
        add_precision(staging.path, sessions, known, table, both, precision, report)
        manifest = _describe(parent, precision, file, fp32, found, table)
        facts = _tell(manifest, precision, found, device, tolerance) | made
        manifest = _note_parity(manifest, precision, facts)
        report.line(_say_lost(precision, facts))
        manifest = _choose_served(staging.path, manifest, precision, val, report)
        write_json(staging.path / "parity.json", manifest.parity)
        if write:
            write(Unsealed(staging.path, manifest, table, targets, found.other))
        return staging.commit(manifest)


def compare_graphs(
    fp32: Session,
    other: Session,
    manifest: Manifest,
    items: Sequence[Item],
    targets: TargetSpec,
    report: Reporter,
    name: str,
) -> Compared:
    """Score two graphs on the same images, from bytes to answer, and compare their answers."""
    scorings = Scoring(manifest, targets), Scoring(manifest, targets)
    equal, worst, largest = [], 0.0, 0.0
    with report.task(name) as task:
        order = [[i] for i in range(len(items))]
        for done, loaded in enumerate(iterate(items, order, load_item, workers=1)):
            item, image, mask = loaded[0]
            answers = [answer_image(session, manifest, image) for session in (fp32, other)]
            for scoring, answer in zip(scorings, answers, strict=True):
                scoring.add(item, answer, mask)
            equal.append(_share_equal(answers[0], answers[1], manifest))
            worst = max(worst, float(np.abs(answers[0].logits - answers[1].logits).max()))
            largest = max(largest, float(np.abs(answers[0].logits).max()))
            task.update(done + 1, len(items))
            raise_if_requested()
    first, second = (scoring.finish() for scoring in scorings)
    return Compared(first, second, float(np.mean(equal)), worst, largest)


def _share_equal(one: Answer, other: Answer, manifest: Manifest) -> float:
    if one.mask is not None:
        return float(np.mean(one.mask == other.mask))
    if manifest.output.multilabel:
        return float(np.mean((one.logits > 0) == (other.logits > 0)))
    return float(one.logits.argmax() == other.logits.argmax())


def _open_both(folder: Path, fp32: str, file: str, precision: str) -> tuple[Session, Session]:
    """Open two graphs to compare; fp16 on a GPU where there is one, as it is what will run it."""
    other = open_session(folder / file, "auto" if precision == "fp16" else "cpu")
    return open_session(folder / fp32, other.device), other


def _describe(
    parent: StoredVersion, precision: Any, file: str, fp32: str, found: Compared, table: Table
) -> Manifest:
    """Return the manifest but for parity, speed and what is served."""
    known = parent.manifest
    scores: dict[str, Any] = {"data": str(table.root), "fingerprint": table.fingerprint(), "split": "val"}
    scores |= {**found.other.scores.to_dict(), "fp32": found.fp32.scores.to_dict()}
    fitted = known.scores.get("calibration")
    if known.task == "classify" and fitted:
        kept = {key: fitted[key] for key in ("temperature", "fitted", "note") if key in fitted}
        measured = measure(gather(found.other.images, known.output), known.output)
        scores["calibration"] = {"split": "val"} | kept | measured
    return dataclasses.replace(
        known,
        precision=precision,
        graph=fp32,
        graphs={"fp32": fp32} | known.graphs | {precision: file},
        scores=scores,
        parent=parent.ref,
        created=now(),
        surgery_version=surgery.__version__,
    )


def _tell(
    manifest: Manifest, precision: str, found: Compared, device: str, tolerance: float
) -> dict[str, Any]:
    """Return what the manifest says of how the precision compares with float32."""
    return {
        "graph": manifest.graphs[precision],
        "device": device,
        "images": len(found.fp32.images),
        "metric": found.fp32.scores.metric,
        "fp32": found.fp32.scores.main,
        "score": found.other.scores.main,
        "loss_points": round(found.lost, 4),
        "tolerance_points": tolerance,
        "passed": found.lost <= tolerance,
        "answers_equal": found.equal,
        "max_difference": found.max_difference,
        "largest_logit": found.largest_logit,
    }


def _note_parity(manifest: Manifest, precision: str, facts: dict[str, Any]) -> Manifest:
    of_each = manifest.parity.get("precisions", {}) | {precision: facts}
    return dataclasses.replace(manifest, parity=manifest.parity | {"precisions": of_each})


def _say_lost(precision: str, facts: dict[str, Any]) -> str:
    lost = f"{facts['loss_points']:.2f} points lost, tolerance {facts['tolerance_points']:g}"
    said = (
        f"{precision}: {facts['metric']} {facts['score']:.4f}, in fp32 {facts['fp32']:.4f}: {lost}; "
        f"{facts['answers_equal']:.2%} of the answers equal"
    )
    return said if facts["passed"] else f"{said}. Past the tolerance: it is stored, but not to be promoted"


def _choose_served(
    folder: Path, manifest: Manifest, precision: str, val: Sequence[Item], report: Reporter
) -> Manifest:
    """Time what may be served, the precision the version is made for among it, and choose.

    Where that lost too much the version is not promoted, so it answers only who asks for it by its number.
    """
    facts = manifest.parity["precisions"]
    allowed = [
        name for name in manifest.graphs if name in ("fp32", precision) or facts.get(name, {}).get("passed")
    ]
    images = [read_image(val[i].image) for i in spread(len(val), TIMED_IMAGES)]
    inputs = [prepare_image(image, manifest.input) for image in images]
    graphs = {name: folder / manifest.graphs[name] for name in allowed}
    speed = {}
    for device in ("cpu", "cuda"):
        measured = measure_speed(graphs, device, inputs, report)
        if measured is not None:
            speed[device] = measured | {"input": list(inputs[0].shape[1::-1])}
    served = choose_served(speed, allowed)
    for device, name in served.items():
        report.line(f"on {device} it serves {name} ({_say_speed(speed.get(device))})")
    serve = {device: manifest.graphs[name] for device, name in served.items()}
    return dataclasses.replace(manifest, serve=serve, speed=speed)


def _say_speed(measured: dict[str, Any] | None) -> str:
    if measured is None:
        return "not at hand here, so not measured"
    return ", ".join(f"{name} {took:.3g} ms" for name, took in measured["milliseconds"].items()) + " an image"
