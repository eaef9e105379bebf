"""Scores of predictions against truth, the same in training, in `surgery evaluate` and at export."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torchmetrics.functional.classification import multiclass_confusion_matrix

from surgery.artifact.manifest import OutputSpec
from surgery.data.targets import IGNORE


@dataclass(frozen=True)
class Scores:
    """What an evaluation found.

    Attributes:
        n: Images.
        scores: Named scores, each a share between 0 and 1.
        per_class: The scores of each class by its name.
        confusion: Rows are the truth, columns the prediction; images, or pixels for masks. Empty where an
            image may have several labels.
        classes: Names of rows and columns.
    """

    n: int
    scores: dict[str, float]
    per_class: dict[str, dict[str, float]]
    confusion: list[list[int]]
    classes: tuple[str, ...]

    @property
    def metric(self) -> str:
        """Name of the main score: mean IoU, mean average precision, or accuracy."""
        return next(name for name in ("iou", "map", "accuracy") if name in self.scores)

    @property
    def main(self) -> float:
        """The score that checkpoints are chosen by."""
        return self.scores[self.metric]

    def to_dict(self) -> dict[str, object]:
        return {
            "n": self.n,
            "scores": self.scores,
            "per_class": self.per_class,
            "confusion": {"classes": list(self.classes), "matrix": self.confusion},
        }


class Scorer(Protocol):
    """What counts images, and scores all of them or any choice of them."""

    def weighted(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Return the named scores where the i-th image that was counted stands `weights[..., i]` times.

        Args:
            weights: Shape (k, n), whole numbers from 0 on.

        Returns:
            k values of each score.
        """

    def compute(self) -> Scores:
        """Return the scores of all images that were counted."""


@dataclass
class LabelScorer:
    """Accuracy, macro F1 and confusion matrix of single labels.

    Macro F1 is the mean over classes that occur in the truth or in the predictions (as in
    scikit-learn).
    """

    output: OutputSpec
    truths: list[int] = field(default_factory=list, init=False)
    predicted: list[int] = field(default_factory=list, init=False)

    def update(self, logits: np.ndarray, truth: int) -> None:
        """Count one image, from its logits (c,) and the index of its class."""
        self.truths.append(truth)
        self.predicted.append(int(logits.argmax()))

    def weighted(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """See `Scorer`."""
        size = len(self.output.classes)
        truth, predicted = np.array(self.truths, int), np.array(self.predicted, int)
        right = weights * (truth == predicted)
        hits, wanted, found = (
            np.array([np.bincount(labels, row, size) for row in rows]).reshape(-1, size)  # (k, c)
            for labels, rows in ((truth, right), (truth, weights), (predicted, weights))
        )
        f1 = _share(2 * hits, wanted + found)
        return {
            "accuracy": _share(hits.sum(1), wanted.sum(1)),
            "macro_f1": _mean(f1, wanted + found > 0),
        }

    def compute(self) -> Scores:
        """See `Scorer`."""
        matrix = np.zeros((len(self.output.classes),) * 2, np.int64)
        np.add.at(matrix, (self.truths, self.predicted), 1)
        hits, truth, predicted = np.diag(matrix).astype(float), matrix.sum(1), matrix.sum(0)
        precision, recall = _share(hits, predicted), _share(hits, truth)
        f1 = _share(2 * hits, truth + predicted)
        per_class = {
            name: {
                "precision": float(precision[i]),
                "recall": float(recall[i]),
                "f1": float(f1[i]),
                "n": int(truth[i]),
            }
            for i, name in enumerate(self.output.classes)
        }
        n = len(self.truths)
        return Scores(n, _of_all(self, n), per_class, matrix.tolist(), self.output.classes)


@dataclass
class MultiLabelScorer:
    """Scores of images that may have several labels, or none.

    `map` is the mean over classes of average precision, `macro_f1` the mean of F1 at a probability of
    one half; classes without a positive image are left out of both (their F1 counts if they are
    predicted). `micro_f1` counts all labels alike, `accuracy` the images of which every label is right.
    """

    output: OutputSpec
    logits: list[np.ndarray] = field(default_factory=list, init=False)
    truths: list[np.ndarray] = field(default_factory=list, init=False)

    def update(self, logits: np.ndarray, truth: tuple[int, ...]) -> None:
        """Count one image, from its logits (c,) and the indices of its classes."""
        present = np.zeros(len(self.output.classes), bool)
        present[list(truth)] = True
        self.logits.append(np.asarray(logits, np.float64))
        self.truths.append(present)

    def weighted(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """See `Scorer`."""
        truth, logits = self._table()
        hits, wanted, found = (
            weights @ flags.astype(float) for flags in (truth & (logits > 0), truth, logits > 0)
        )  # (k, c)
        precision = average_precision(truth, logits, weights)
        f1 = _share(2 * hits, wanted + found)
        right = (truth == (logits > 0)).all(1)
        return {
            "map": _mean(precision, wanted > 0),
            "macro_f1": _mean(f1, wanted + found > 0),
            "micro_f1": _share(2 * hits.sum(1), wanted.sum(1) + found.sum(1)),
            "accuracy": _share(weights @ right.astype(float), weights.sum(1)),
        }

    def compute(self) -> Scores:
        """See `Scorer`."""
        truth, logits = self._table()
        hits = (truth & (logits > 0)).sum(0).astype(float)
        wanted, found = truth.sum(0), (logits > 0).sum(0)
        columns = {
            "average_precision": average_precision(truth, logits, np.ones((1, len(truth))))[0],
            "precision": _share(hits, found),
            "recall": _share(hits, wanted),
            "f1": _share(2 * hits, wanted + found),
        }
        per_class = {
            name: {key: float(column[i]) for key, column in columns.items()} | {"n": int(wanted[i])}
            for i, name in enumerate(self.output.classes)
        }
        return Scores(len(truth), _of_all(self, len(truth)), per_class, [], self.output.classes)

    def _table(self) -> tuple[np.ndarray, np.ndarray]:
        """Return truth (n, c) bool and logits (n, c)."""
        size = len(self.output.classes)
        return np.array(self.truths, bool).reshape(-1, size), np.array(self.logits).reshape(-1, size)


@dataclass
class MaskScorer:
    """IoU and Dice per class, over the data set and as the mean over images.

    The mean over classes leaves the rest class out, and classes that occur neither in the truth nor
    in the predictions. An image that holds a class neither in truth nor in prediction counts as 1
    for it in the score per image (as in segmentation_models_pytorch, `zero_division=1`).
    """

    output: OutputSpec
    matrix: np.ndarray = field(init=False)
    counts: list[np.ndarray] = field(default_factory=list, init=False)
    """Of each image and class the pixels that are right, true, and predicted, (3, c)."""

    def __post_init__(self) -> None:
        size = len(self.output.classes)
        self.matrix = np.zeros((size, size), np.int64)
        values = np.asarray(self.output.mask_values)
        self._index = np.full(int(values.max()) + 1, -1, np.int64)
        self._index[values] = np.arange(size)
        self._scored = [i for i, name in enumerate(self.output.classes) if name != self.output.rest]

    def update(self, mask: np.ndarray, truth: np.ndarray) -> None:
        """Count one image.

        Args:
            mask: Predicted index mask, (h, w).
            truth: Index of the true class by pixel, (h, w) uint8; 255 is left out.
        """
        counts = multiclass_confusion_matrix(
            torch.from_numpy(self._index[mask]),
            torch.from_numpy(truth.astype(np.int64)),
            num_classes=len(self.output.classes),
            ignore_index=IGNORE,
            validate_args=False,
        ).numpy()
        self.matrix += counts
        self.counts.append(np.stack([np.diag(counts), counts.sum(1), counts.sum(0)]))

    def weighted(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """See `Scorer`."""
        counts = self._table()
        totals = np.tensordot(weights, counts, axes=1)  # (k, n), (n, 3, c) -> (k, 3, c)
        iou, dice = mask_overlap(totals[..., self._scored])
        seen = totals[:, 1:, self._scored].sum(1) > 0
        each = [share.mean(1) for share in mask_overlap(counts[..., self._scored], empty=1.0)]  # (n,)
        return {
            "iou": _mean(iou, seen),
            "dice": _mean(dice, seen),
            "iou_per_image": _share(weights @ each[0], weights.sum(1)),
            "dice_per_image": _share(weights @ each[1], weights.sum(1)),
        }

    def compute(self) -> Scores:
        """See `Scorer`."""
        counts, n = self._table(), len(self.counts)
        iou, dice = mask_overlap(counts.sum(0))
        iou_each, dice_each = (share.sum(0) / max(1, n) for share in mask_overlap(counts, empty=1.0))
        columns = {"iou": iou, "dice": dice, "iou_per_image": iou_each, "dice_per_image": dice_each}
        per_class = {
            self.output.classes[i]: {name: float(column[i]) for name, column in columns.items()}
            for i in self._scored
        }
        return Scores(n, _of_all(self, n), per_class, self.matrix.tolist(), self.output.classes)

    def _table(self) -> np.ndarray:
        """Return the counts of all images, (n, 3, c)."""
        return np.array(self.counts, float).reshape(-1, 3, len(self.output.classes))


def make_scorer(output: OutputSpec) -> LabelScorer | MultiLabelScorer | MaskScorer:
    """Return an empty scorer for what a model answers."""
    if output.mask_values:
        return MaskScorer(output)
    return MultiLabelScorer(output) if output.multilabel else LabelScorer(output)


def mask_overlap(counts: np.ndarray, empty: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Return IoU and Dice of each class, (…, c) each.

    Args:
        counts: Pixels that are right, true, and predicted, shape (…, 3, c).
        empty: Score of a class that is neither true nor predicted anywhere.
    """
    hits, both = counts[..., 0, :], counts[..., 1, :] + counts[..., 2, :]
    return _share(hits, both - hits, empty), _share(2 * hits, both, empty)


def average_precision(truth: np.ndarray, logits: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the average precision of each class, (k, c); 0 for one without a positive image.

    The sum over all thresholds of precision times the gain in recall, as in scikit-learn; images of the
    same logit share one.

    Args:
        truth: Whether an image has a class, shape (n, c).
        logits: Shape (n, c).
        weights: How often each image stands, shape (k, n).
    """
    found = np.zeros((len(weights), truth.shape[1]))
    for i in range(truth.shape[1] if len(truth) else 0):
        order = np.argsort(-logits[:, i], kind="stable")
        last = np.append(np.diff(logits[order, i]) != 0, True)
        ranked = weights[:, order]  # (k, n)
        hits = np.cumsum(ranked * truth[order, i], axis=1)[:, last]  # (k, thresholds)
        precision = _share(hits, np.cumsum(ranked, axis=1)[:, last])
        gained = np.diff(hits, axis=1, prepend=0)
        found[:, i] = _share((precision * gained).sum(1), hits[:, -1])
    return found


def _of_all(scorer: Scorer, n: int) -> dict[str, float]:
    return {name: float(value[0]) for name, value in scorer.weighted(np.ones((1, n))).items()}


def _mean(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Return the mean of each row over the places that count, (k, c) -> (k,); 0 where none does."""
    return _share((values * where).sum(1), where.sum(1))


def _share(part: np.ndarray, whole: np.ndarray, empty: float = 0.0) -> np.ndarray:
    whole = np.asarray(whole, float)
    share: np.ndarray = np.divide(part, whole, out=np.full_like(whole, empty), where=whole > 0)
    return share
