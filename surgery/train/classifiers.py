"""Classifiers that learn from features in one go, compared by cross-validation: `--strategy classical`."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import RandomForestClassifier, StackingClassifier, VotingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from surgery.artifact.errors import DataError

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]
Settings = dict[str, Any]

GRID: dict[str, tuple[Settings, ...]] = {
    "logistic": tuple({"C": c} for c in (0.001, 0.01, 0.1, 1.0)),
    "linear-svm": tuple({"C": c} for c in (0.0001, 0.001, 0.01, 0.1)),
    "rbf-svm": tuple({"C": c} for c in (1.0, 10.0, 100.0)),
    "forest": tuple({"min_samples_leaf": n} for n in (1, 3)),
    "knn": tuple({"n_neighbors": n} for n in (5, 11, 21)),
}
"""The settings that are tried of each kind, under scikit-learn's names."""
TREES = 200
CALIBRATION_FOLDS = 3
"""Folds in which the distances of a support vector machine become probabilities."""
LEAST_IMAGES = 4
"""Images of a class, copies and look-alikes counted once, below which nothing can be cross-validated."""
LEAST_PROBABILITY = 1e-3
"""What stands for less: a few hundred images cannot tell it, and single precision rounds 1 - p away."""


@dataclass(frozen=True)
class Examples:
    """Features of images, each in one or several views.

    Attributes:
        features: (n, d) float32.
        labels: (n,) class indices.
        groups: (n,) the same number for views of one image, and for images that look the same.
        plain: (n,) whether the view is what the service would see.
    """

    features: Floats
    labels: Ints
    groups: Ints
    plain: NDArray[np.bool_]

    def of(self, rows: NDArray[Any]) -> Examples:
        """Return some of the rows."""
        return Examples(self.features[rows], self.labels[rows], self.groups[rows], self.plain[rows])


@dataclass(frozen=True)
class Candidate:
    """A classifier and what cross-validation says of it.

    Attributes:
        kind: Its name.
        settings: Of scikit-learn's parameters those that were tried; `of` of a vote or a stack: its parts.
        accuracy: Share of the held-out images that are right, as plain views.
        log_loss: Mean of -log of the probability of the truth.
        held_out: Probabilities of all rows by a classifier that has seen none of their group, (n, c).
    """

    kind: str
    settings: Settings
    accuracy: float
    log_loss: float
    held_out: Floats

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values, for a manifest."""
        told = {"classifier": self.kind, "settings": self.settings}
        return told | {"accuracy": self.accuracy, "log_loss": self.log_loss}


def log_probabilities(probabilities: Floats) -> Floats:
    """Return logits whose softmax is these probabilities, those of 0 raised to `LEAST_PROBABILITY`."""
    return np.log(np.clip(probabilities, LEAST_PROBABILITY, 1.0))


def choose_classifier(
    examples: Examples,
    kinds: Sequence[str],
    folds: int,
    seed: int,
    balanced: bool,
    names: Sequence[str],
    progress: Callable[[int, int], None],
) -> tuple[Any, list[Candidate]]:
    """Compare classifiers by cross-validation and fit the best one on everything.

    All rows of a group are in one fold, so that nothing is judged on another view of what it has learnt.
    Only plain views are judged. A vote is the mean of the probabilities of the best classifier of each
    kind; a stack is a logistic regression on what they say of images they have not seen (Wolpert 1992).

    Args:
        examples: The training images.
        kinds: Of `surgery.config.CLASSIFIERS`; empty for all. `vote` and `stack` are made of the others
            named, of all where fewer than two are.
        folds: Parts that are held out in turn; fewer where a class has not so many images.
        seed: Of folds and forests.
        balanced: Rare classes count more (k nearest neighbours know no weights).
        names: Of the classes, for messages.
        progress: Called with (fits done, fits in all).

    Returns:
        The fitted classifier of scikit-learn, and all candidates, the best first.

    Raises:
        DataError: If a class has too few images.
    """
    splits = _split(examples, folds, seed, names)
    bases = [kind for kind in GRID if kind in kinds]
    joint = [kind for kind in ("vote", "stack") if not kinds or kind in kinds]
    if joint and len(bases) < 2:
        bases = list(GRID)
    tried = [(kind, settings) for kind in bases for settings in _fitting(kind, examples, splits)]
    total = len(tried) * len(splits) + 1
    found: list[Candidate] = []
    for kind, settings in tried:
        held_out = np.zeros((len(examples.labels), len(names)))
        for k, (train, test) in enumerate(splits):
            progress(len(found) * len(splits) + k, total)
            fitted = _fit(kind, settings, examples.of(train), seed, balanced)
            held_out[test] = fitted.predict_proba(examples.features[test])
        found.append(_judge(kind, settings, held_out, examples))
    best = [min((c for c in found if c.kind == kind), key=_rank) for kind in bases]
    parts: Settings = {"of": [each.kind for each in best]}
    if "vote" in joint:
        found.append(_judge("vote", parts, np.mean([each.held_out for each in best], axis=0), examples))
    if "stack" in joint:
        found.append(_judge("stack", parts, _hold_out_stack(best, splits, examples), examples))
    found = [each for each in found if not kinds or each.kind in kinds]
    found.sort(key=_rank)
    fitted = _fit_best(found[0], best, examples, seed, balanced)
    progress(total, total)
    return fitted, found


def _rank(candidate: Candidate) -> tuple[float, float]:
    return -candidate.accuracy, candidate.log_loss


def _judge(kind: str, settings: Settings, held_out: Floats, examples: Examples) -> Candidate:
    said, truth = held_out[examples.plain], examples.labels[examples.plain]
    right = float((said.argmax(1) == truth).mean())
    loss = -float(log_probabilities(said[np.arange(len(truth)), truth]).mean())
    return Candidate(kind, settings, right, loss, held_out)


def _split(
    examples: Examples, folds: int, seed: int, names: Sequence[str]
) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Return (rows to learn from, rows held out) for each fold."""
    counts = _count_groups(examples)
    few = [
        f"{names[label]!r} has {counts[label]}" for label in range(len(names)) if counts[label] < LEAST_IMAGES
    ]
    if few:
        raise DataError(
            f"too few different training images to cross-validate on: {', '.join(few)}",
            f"--strategy classical needs {LEAST_IMAGES} of each; add images, or take --strategy frozen.",
        )
    chosen = min(folds, min(counts.values()))
    folder = StratifiedGroupKFold(chosen, shuffle=True, random_state=seed)
    return list(folder.split(examples.features, examples.labels, examples.groups))


def _count_groups(examples: Examples) -> Counter[int]:
    pairs = set(zip(examples.labels.tolist(), examples.groups.tolist(), strict=True))
    return Counter(label for label, _ in pairs)


def _fitting(
    kind: str, examples: Examples, splits: list[tuple[NDArray[Any], NDArray[Any]]]
) -> list[Settings]:
    """Return the settings that so many rows allow."""
    smallest = min(len(train) for train, _ in splits)
    return [s for s in GRID[kind] if s.get("n_neighbors", 1) <= smallest] or [{"n_neighbors": 1}]


def _fit(kind: str, settings: Settings, examples: Examples, seed: int, balanced: bool) -> Any:
    made = _make(kind, settings, examples, seed, balanced)
    with warnings.catch_warnings():
        # One that did not converge is judged by what it is, like all others.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return made.fit(examples.features, examples.labels)


def _make(kind: str, settings: Settings, examples: Examples, seed: int, balanced: bool) -> Any:
    weights = "balanced" if balanced else None
    if kind == "logistic":
        return make_pipeline(
            StandardScaler(), LogisticRegression(**settings, max_iter=5000, class_weight=weights)
        )
    if kind == "linear-svm":
        machine = LinearSVC(**settings, max_iter=5000, class_weight=weights, random_state=seed)
        return make_pipeline(StandardScaler(), _with_probabilities(machine, examples, seed))
    if kind == "rbf-svm":
        return make_pipeline(
            StandardScaler(), _with_probabilities(SVC(**settings, class_weight=weights), examples, seed)
        )
    if kind == "forest":  # trees ask each value whether it is above a bound: no scale matters
        return RandomForestClassifier(TREES, **settings, class_weight=weights, random_state=seed, n_jobs=-1)
    return KNeighborsClassifier(**settings)  # the features of a stage have one length: distance is angle


def _with_probabilities(machine: Any, examples: Examples, seed: int) -> Any:
    """Return the machine with a sigmoid on its distances, fitted on unseen images (Platt 1999)."""
    folds = max(2, min(CALIBRATION_FOLDS, *_count_groups(examples).values()))
    folder = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    rows = list(folder.split(examples.features, examples.labels, examples.groups))
    return CalibratedClassifierCV(machine, cv=rows, ensemble=False)


def _stacked(parts: Sequence[Floats]) -> Floats:
    """Return what a stack learns from: of two classes one probability of each part, else all of them."""
    return np.concatenate([part[:, 1:] if part.shape[1] == 2 else part for part in parts], axis=1)


def _hold_out_stack(
    parts: Sequence[Candidate], splits: list[tuple[NDArray[Any], NDArray[Any]]], examples: Examples
) -> Floats:
    said = _stacked([part.held_out for part in parts])
    held_out = np.zeros_like(parts[0].held_out)
    for train, test in splits:
        rows = train[examples.plain[train]]
        held_out[test] = LogisticRegression().fit(said[rows], examples.labels[rows]).predict_proba(said[test])
    return held_out


def _fit_best(
    chosen: Candidate, parts: Sequence[Candidate], examples: Examples, seed: int, balanced: bool
) -> Any:
    if chosen.kind not in ("vote", "stack"):
        return _fit(chosen.kind, chosen.settings, examples, seed, balanced)
    if chosen.kind == "vote":
        members = [(p.kind, _make(p.kind, p.settings, examples, seed, balanced)) for p in parts]
        vote = VotingClassifier(members, voting="soft", flatten_transform=False)
        return vote.fit(examples.features, examples.labels)
    fitted = [(p.kind, _fit(p.kind, p.settings, examples, seed, balanced)) for p in parts]
    stack = StackingClassifier(fitted, LogisticRegression(), cv="prefit", stack_method="predict_proba")
    stack.fit(examples.features, examples.labels)
    # Prefit, it has learnt how far its parts can be believed on images they know; what counts is new ones.
    rows = examples.plain
    said = _stacked([part.held_out for part in parts])
    stack.final_estimator_ = LogisticRegression().fit(said[rows], examples.labels[rows])
    return stack
