"""Whether a better pretrained network transfers better: fine-tune from several checkpoints of one run.

References:
    Kornblith et al. 2019, arXiv:1805.08974 (source against target accuracy); Neyshabur et al. 2020,
    arXiv:2008.11687, section 3.5 (checkpoints of one pretraining).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from surgery.artifact.errors import ConfigError
from surgery.study.fitting import Recipe, fit, make_network
from surgery.study.pictures import load_pictures
from surgery.study.result import Curve, Result, Row
from surgery.study.runner import Answer
from surgery.study.spread import Spread, describe, spread
from surgery.study.start import Start, load_start, name_start


@dataclass(frozen=True)
class Checkpoint:
    """A point of a pretraining.

    Attributes:
        path: The file.
        sha256: Of the file.
        epoch: Epochs done.
        accuracy: On the run's own val.
        averaged: Whether that, and what is fine-tuned, is the moving average of the weights.
    """

    path: str
    sha256: str
    epoch: int
    accuracy: float
    averaged: bool = False


@dataclass(frozen=True)
class CheckpointTraining:
    """One fine-tuning of the study.

    Attributes:
        data: Digest of the pictures.
        network: Its backbone.
        weights: What names those that it began from, for layers that it did not change.
        checkpoint: Where it had come to.
        frozen: Train the head alone.
        recipe: How.
        seed: Of all that is new.
    """

    data: str
    network: str
    weights: Start
    checkpoint: Checkpoint
    frozen: bool
    recipe: Recipe
    seed: int


def read_run(folder: Path) -> dict[str, Any]:
    """Return the config of a run's folder.

    Raises:
        ConfigError: If it is no run of `finetune`, or one whose backbone did not learn.
    """
    path = folder / "run.json"
    hint = "Give a folder of runs/ that `surgery finetune … --keep-checkpoints all` left."
    if not path.is_file():
        raise ConfigError(f"{folder}: no run: it holds no run.json", hint)
    values = json.loads(path.read_text("utf-8"))
    config: dict[str, Any] = values["config"]
    if values.get("kind", "finetune") != "finetune":
        raise ConfigError(f"{folder}: a run of {values['kind']}, not of finetune", hint)
    if config["strategy"] in ("frozen", "classical"):
        raise ConfigError(
            f"{folder}: --strategy {config['strategy']} trained no backbone, so its checkpoints are alike",
            "Give a run of --strategy random, full or partial.",
        )
    return config


def list_checkpoints(folder: Path, most: int | None = None) -> list[Checkpoint]:
    """Return the checkpoints of a run at the ends of epochs, by epoch.

    Args:
        folder: The run's folder.
        most: Take so many at most, evenly spread, the first and the last among them.

    Raises:
        ConfigError: If there are fewer than two.
    """
    from safetensors import safe_open

    from surgery.artifact.disk import sha256
    from surgery.train.checkpoint import is_averaged

    paths = sorted((folder / "checkpoints").glob("epoch-*-step-000000.safetensors"))
    if len(paths) < 2:
        raise ConfigError(
            f"{folder}: holds {len(paths)} checkpoints of whole epochs; two or more are compared",
            "Run the pretraining with --keep-checkpoints all.",
        )
    if most and len(paths) > most:
        paths = [paths[k] for k in np.unique(np.linspace(0, len(paths) - 1, most).round().astype(int))]
    found = []
    for path in paths:
        with safe_open(path, framework="np") as file:
            progress, averaged = json.loads(file.metadata()["progress"]), is_averaged(file)
        last = progress["history"][-1]
        metric = next(name for name in ("iou", "map", "accuracy") if name in last["val"])
        accuracy = last["val"][metric]
        found.append(Checkpoint(str(path.resolve()), sha256(path), progress["epoch"], accuracy, averaged))
    return found


def list_trainings(
    data: str, config: dict[str, Any], points: Sequence[Checkpoint], frozen: bool, recipe: Recipe, seeds: int
) -> list[CheckpointTraining]:
    """Return the trainings: each checkpoint for each seed.

    Raises:
        WeightsError: If what the run began from cannot be had.
    """
    word = "random" if config["strategy"] == "random" else config["weights"]
    weights, _ = name_start(config["backbone"], word)
    return [
        CheckpointTraining(data, config["backbone"], weights, point, frozen, recipe, seed)
        for seed in range(seeds)
        for point in points
    ]


def run_checkpoint(training: CheckpointTraining, folder: Path) -> Answer:
    """Run one training (see `RunOne`)."""
    from surgery.nets.weights import LoadedWeights, timm_names
    from surgery.train.checkpoint import load_judged

    pictures = load_pictures(folder.parent, training.data)
    state = timm_names(load_judged(Path(training.checkpoint.path)))
    if training.weights.sha256:  # a partly frozen run keeps only what learnt
        before = load_start(training.network, training.weights).state or {}
        state = before | state
    weights = LoadedWeights(state, {})
    model = make_network(
        training.network, len(pictures.classes), training.recipe.dropout, weights, training.seed
    )
    first = len(model.backbone.stages) if training.frozen else 0
    fitted = fit(model, pictures, training.recipe, first, training.seed, folder)
    return {"accuracy": fitted.accuracy[-1], "loss": fitted.loss}


@dataclass(frozen=True)
class Course:
    """What the trainings say together, by checkpoint.

    Attributes:
        points: The checkpoints.
        target: Accuracy on the data after fine-tuning.
        correlation: Spearman's, of pretraining and target accuracy, one a seed.
        best: Index of the checkpoint with the highest target accuracy.
        last: Target accuracy of the best one minus that of the last one, paired by seed.
    """

    points: tuple[Checkpoint, ...]
    target: list[Spread]
    correlation: Spread
    best: int
    last: Spread


def summarise(answers: dict[CheckpointTraining, Answer]) -> Course:
    """Return target accuracies with their intervals over seeds, and how they follow the pretraining's."""
    from scipy import stats

    points = tuple(sorted({each.checkpoint for each in answers}, key=lambda point: point.epoch))
    seeds = sorted({each.seed for each in answers})
    value = {(each.checkpoint, each.seed): answer["accuracy"] for each, answer in answers.items()}
    table = np.array([[value[point, seed] for seed in seeds] for point in points])  # (points, seeds)
    source = [point.accuracy for point in points]
    found = [
        float(stats.spearmanr(source, column).statistic) if np.ptp(column) and np.ptp(source) else 0.0
        for column in table.T
    ]
    best = int(table.mean(1).argmax())
    ahead = spread((table[best] - table[-1]).tolist())
    return Course(points, [spread(row.tolist()) for row in table], spread(found), best, ahead)


def conclude(course: Course) -> tuple[str, str]:
    """Return two sentences: what was found, and what it means for the next decision."""
    best = course.points[course.best]
    found = (
        f"Target accuracy follows pretraining accuracy with a rank correlation of {course.correlation} over "
        f"{len(course.points)} checkpoints; the best start is that of epoch {best.epoch}, with "
        f"{course.target[course.best]}."
    )
    if course.best == len(course.points) - 1:
        return found, "The last checkpoint is the best start: use it, and longer pretraining may still help."
    if course.last.verdict == "above":
        return found, (
            f"Use the checkpoint of epoch {best.epoch}: the last one is behind it by {course.last}, so more "
            "pretraining has cost transfer."
        )
    return found, (
        f"Use the last checkpoint: that of epoch {best.epoch} is ahead by {course.last}, which these seeds "
        "cannot tell from none, and pretraining could have ended there."
    )


def report(course: Course, title: str) -> Result:
    """Return the study's figure, table, values and sentences."""
    rows: list[Row] = [
        {
            "epoch": point.epoch,
            "pretraining accuracy": round(point.accuracy, 4),
            "target accuracy": str(target),
        }
        for point, target in zip(course.points, course.target, strict=True)
    ]
    return Result(
        study="checkpoints",
        title=title,
        sentences=conclude(course),
        rows=rows,
        values={
            "checkpoints": [
                {"epoch": point.epoch, "accuracy": point.accuracy, "target": describe(target)}
                for point, target in zip(course.points, course.target, strict=True)
            ],
            "rank_correlation": describe(course.correlation),
            "best_epoch": course.points[course.best].epoch,
            "best_minus_last": describe(course.last),
        },
        curves=[Curve("checkpoints", [point.accuracy for point in course.points], course.target, marks=True)],
        x="accuracy of the pretraining",
        y="accuracy on the data",
    )
