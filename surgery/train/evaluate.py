"""Scores of predictions against truth, the same in training, in `surgery evaluate` and at export."""

from __future__ import annotations

from dataclasses import dataclass, field

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
    def main(self) -> float:
        """The score that checkpoints are chosen by: mean IoU, mean average precision, or accuracy."""
        return next(self.scores[name] for name in ("iou", "map", "accuracy") if name in self.scores)

    def to_dict(self) -> dict[str, object]:
        return {
            "n": self.n,
            "scores": self.scores,
            "per_class": self.per_class,
            "confusion": {"classes": list(self.classes), "matrix": self.confusion},
        }


@dataclass
class LabelScorer:
    """Accuracy, macro F1 and confusion matrix of single labels.

    Macro F1 is the mean over classes that occur in the truth or in the predictions (as in
    scikit-learn).
    """

    output: OutputSpec
    matrix: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        size = len(self.output.classes)
        self.matrix = np.zeros((size, size), np.int64)

    def update(self, logits: np.ndarray, truth: int) -> None:
        """Count one image, from its logits (c,) and the index of its class."""
        self.matrix[truth, int(logits.argmax())] += 1

    def compute(self) -> Scores:
        hits = np.diag(self.matrix).astype(float)
        truth, predicted = self.matrix.sum(1), self.matrix.sum(0)
        f1 = _share(2 * hits, truth + predicted)
        seen = truth + predicted > 0
        n = int(self.matrix.sum())
        per_class = {
            name: {
                "precision": float(_share(hits, predicted)[i]),
                "recall": float(_share(hits, truth)[i]),
                "f1": float(f1[i]),
                "n": int(truth[i]),
            }
            for i, name in enumerate(self.output.classes)
        }
        scores = {
            "accuracy": float(hits.sum() / n) if n else 0.0,
            "macro_f1": float(f1[seen].mean()) if seen.any() else 0.0,
        }
        return Scores(n, scores, per_class, self.matrix.tolist(), self.output.classes)


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

    def compute(self) -> Scores:
        from sklearn.metrics import average_precision_score

        size = len(self.output.classes)
        truth = np.array(self.truths, bool).reshape(-1, size)  # (n, c)
        logits = np.array(self.logits).reshape(-1, size)
        predicted = logits > 0
        hits = (truth & predicted).sum(0).astype(float)
        wanted, found = truth.sum(0), predicted.sum(0)
        f1 = _share(2 * hits, wanted + found)
        precision = [
            float(average_precision_score(truth[:, i], logits[:, i])) if wanted[i] else 0.0
            for i in range(size)
        ]
        per_class = {
            name: {
                "average_precision": precision[i],
                "precision": float(_share(hits, found)[i]),
                "recall": float(_share(hits, wanted)[i]),
                "f1": float(f1[i]),
                "n": int(wanted[i]),
            }
            for i, name in enumerate(self.output.classes)
        }
        seen, judged = wanted > 0, wanted + found > 0
        scores = {
            "map": float(np.mean(precision, where=seen)) if seen.any() else 0.0,
            "macro_f1": float(f1[judged].mean()) if judged.any() else 0.0,
            "micro_f1": float(_share(2 * hits.sum(), wanted.sum() + found.sum())),
            "accuracy": float((truth == predicted).all(1).mean()) if len(truth) else 0.0,
        }
        return Scores(len(truth), scores, per_class, [], self.output.classes)


@dataclass
class MaskScorer:
    """IoU and Dice per class, over the data set and as the mean over images.

    The mean over classes leaves the rest class out, and classes that occur neither in the truth nor
    in the predictions. An image that holds a class neither in truth nor in prediction counts as 1
    for it in the score per image (as in segmentation_models_pytorch, `zero_division=1`).
    """

    output: OutputSpec
    matrix: np.ndarray = field(init=False)
    per_image: list[np.ndarray] = field(default_factory=list, init=False)
    """IoU and Dice of each class in each image, (2, classes)."""

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
        hits, union = _overlap(counts)
        both = _share(hits, union, empty=1.0), _share(2 * hits, union + hits, empty=1.0)
        self.per_image.append(np.stack(both))

    def compute(self) -> Scores:
        hits, union = _overlap(self.matrix)
        iou = _share(hits, union)
        dice = _share(2 * hits, union + hits)
        seen = [i for i in self._scored if union[i] > 0]
        iou_each, dice_each = np.mean(self.per_image, axis=0) if self.per_image else np.zeros((2, len(iou)))
        columns = {"iou": iou, "dice": dice, "iou_per_image": iou_each, "dice_per_image": dice_each}
        per_class = {
            self.output.classes[i]: {name: float(column[i]) for name, column in columns.items()}
            for i in self._scored
        }
        scores = {
            "iou": float(iou[seen].mean()) if seen else 0.0,
            "dice": float(dice[seen].mean()) if seen else 0.0,
            "iou_per_image": float(iou_each[self._scored].mean()),
            "dice_per_image": float(dice_each[self._scored].mean()),
        }
        n = len(self.per_image)
        return Scores(n, scores, per_class, self.matrix.tolist(), self.output.classes)


def make_scorer(output: OutputSpec) -> LabelScorer | MultiLabelScorer | MaskScorer:
    """Return an empty scorer for what a model answers."""
    if output.mask_values:
        return MaskScorer(output)
    return MultiLabelScorer(output) if output.multilabel else LabelScorer(output)


def _overlap(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    hits = np.diag(matrix).astype(float)
    return hits, matrix.sum(0) + matrix.sum(1) - hits


def _share(part: np.ndarray, whole: np.ndarray, empty: float = 0.0) -> np.ndarray:
    whole = np.asarray(whole, float)
    share: np.ndarray = np.divide(part, whole, out=np.full_like(whole, empty), where=whole > 0)
    return share
