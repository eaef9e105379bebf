"""Whether the labels carry a signal: how fast a network learns the true ones, and how fast random ones.

References:
    Zhang et al. 2017, arXiv:1611.03530, sections 2 and 3; Kawaguchi et al. 2017, arXiv:1710.05468.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from surgery.artifact.errors import DataError
from surgery.study.fitting import Recipe, fit, make_network
from surgery.study.noise import change_pixels, corrupt_labels, draw_signs, permute_labels
from surgery.study.pictures import Pictures, load_pictures
from surgery.study.result import Curve, Result, Row
from surgery.study.runner import Answer
from surgery.study.spread import Spread, describe, spread
from surgery.study.two_layers import build_two_layers

FITTED = 0.99
"""Share of the training images at which their labels count as learnt."""
BUILT, BUILT_VALUES = 2000, 30_000_000
"""Images that the built network is fitted to at most, since its hidden layer is as wide, and their values."""


@dataclass(frozen=True)
class Condition:
    """One row of the table.

    Attributes:
        name: What it is called.
        labels: Share of the labels drawn at random, evenly from all classes; 1: all.
        permuted: The true labels are dealt out anew, so that each class stays as frequent as it is.
        pixels: One of `noise.PIXELS`.
        augment: Preset of the augmentation, or `none`.
        weight_decay: AdamW's.
        dropout: Before the last layer.
        signs: Labels are fair coins, two classes.
    """

    name: str
    labels: float = 0.0
    permuted: bool = False
    pixels: str = "true"
    augment: str = "none"
    weight_decay: float = 0.0
    dropout: float = 0.0
    signs: bool = False


CONDITIONS = (
    Condition("true labels"),
    Condition("a quarter random", labels=0.25),
    Condition("half random", labels=0.5),
    Condition("random labels", labels=1.0),
    Condition("permuted labels", permuted=True),
    Condition("shuffled pixels", pixels="shuffled"),
    Condition("random pixels", pixels="random"),
    Condition("gaussian images", pixels="gaussian"),
    Condition("random ±1", signs=True),
)
REGULARISED = tuple(
    Condition(f"{name}, {said}", labels=share, **given)
    for name, share in (("true labels", 0.0), ("random labels", 1.0))
    for said, given in (
        ("augmented", {"augment": "light"}),
        ("weight decay", {"weight_decay": 0.1}),
        ("dropout", {"dropout": 0.5}),
    )
)


@dataclass(frozen=True)
class MemoriseTraining:
    """One network of the study.

    Attributes:
        data: Digest of the pictures.
        network: The backbone, with random weights.
        condition: What it learns.
        recipe: How.
        seed: Of all that is drawn.
    """

    data: str
    network: str
    condition: Condition
    recipe: Recipe
    seed: int


def list_trainings(
    data: str, network: str, conditions: Sequence[Condition], recipe: Recipe, seeds: int
) -> list[MemoriseTraining]:
    """Return the trainings: each condition for each seed."""
    return [
        MemoriseTraining(
            data,
            network,
            each,
            replace(recipe, augment=each.augment, weight_decay=each.weight_decay, dropout=each.dropout),
            seed,
        )
        for seed in range(seeds)
        for each in conditions
    ]


def prepare(pictures: Pictures, condition: Condition, seed: int) -> Pictures:
    """Return the pictures of a condition; the judged images keep their labels, but for coins."""
    pictures = change_pixels(pictures, condition.pixels, seed)
    if condition.signs:
        sides = draw_signs(pictures.train, seed), draw_signs(pictures.judged, seed + 1)
        return Pictures(("-1", "+1"), *sides)
    if condition.permuted:
        return replace(pictures, train=permute_labels(pictures.train, seed))
    train = corrupt_labels(pictures.train, condition.labels, len(pictures.classes), seed)
    return replace(pictures, train=train)


def run_memorise(training: MemoriseTraining, folder: Path) -> Answer:
    """Run one training (see `RunOne`); it ends when the labels are learnt."""
    pictures = prepare(load_pictures(folder.parent, training.data), training.condition, training.seed)
    recipe = training.recipe
    model = make_network(training.network, len(pictures.classes), recipe.dropout, None, training.seed)
    fitted = fit(model, pictures, recipe, 0, training.seed, folder, watches=True, enough=FITTED)
    reached = [k for k, share in enumerate(fitted.train_accuracy) if share >= FITTED]
    end = reached[0] if reached else len(fitted.train_accuracy) - 1
    return {
        "epochs_to_fit": reached[0] if reached else None,
        "train_accuracy": fitted.train_accuracy[end],
        "test_accuracy": fitted.accuracy[end],
        "train_curve": fitted.train_accuracy[: end + 1],
        "test_curve": fitted.accuracy[: end + 1],
    }


@dataclass(frozen=True)
class Learnt:
    """One condition over the seeds.

    Attributes:
        condition: Which.
        epochs: Epochs until the labels are learnt; None where some seed did not get there.
        fitted: Seeds that got there.
        train_error, test_error: At the end.
        gap: R[f] − R_S[f], test error minus training error, paired by seed.
        early: Training accuracy, averaged over all epochs of the budget; once learnt it counts as 1.
    """

    condition: Condition
    epochs: Spread | None
    fitted: int
    train_error: Spread
    test_error: Spread
    gap: Spread
    early: list[float]


def summarise(answers: dict[MemoriseTraining, Answer]) -> dict[str, Learnt]:
    """Return each condition by its name, in the order of the list."""
    found = {}
    for condition in dict.fromkeys(each.condition for each in answers):
        mine = {each: answer for each, answer in answers.items() if each.condition == condition}
        rows = list(mine.values())
        budget = next(iter(mine)).recipe.epochs
        reached = [row["epochs_to_fit"] for row in rows if row["epochs_to_fit"] is not None]
        train = [1 - row["train_accuracy"] for row in rows]
        test = [1 - row["test_accuracy"] for row in rows]
        found[condition.name] = Learnt(
            condition,
            spread(reached) if len(reached) == len(rows) else None,
            len(reached),
            spread(train),
            spread(test),
            spread([b - a for a, b in zip(train, test, strict=True)]),
            [_early(row, budget) for row in rows],
        )
    return found


def _early(row: Answer, budget: int) -> float:
    curve = row["train_curve"][1:]
    rest = 1.0 if row["epochs_to_fit"] is not None else (curve or [0.0])[-1]
    return float(np.mean(curve + [rest] * (budget - len(curve))))


def complexity(learnt: dict[str, Learnt]) -> Spread | None:
    """Return the estimate of the empirical Rademacher complexity of what training can reach, 0–1.

    The mean over draws of ±1 labels of (1/n) Σ σᵢ h(xᵢ), where h is the network that training found: twice
    the training accuracy minus one. Training need not find the supremum, so it is a lower bound.

    References:
        Zhang et al. 2017, section 2.3; Bartlett & Mendelson 2002, JMLR 3, definition 2.
    """
    found = next((each for each in learnt.values() if each.condition.signs), None)
    if found is None:
        return None
    error = found.train_error
    return Spread(1 - 2 * error.mean, None if error.half is None else 2 * error.half, error.n)


def fit_built(pictures: Pictures, seed: int) -> dict[str, Any]:
    """Build the network of 2n + d weights for random labels of the images, and say how well it fits."""
    images = pictures.train.images
    most = max(2, min(BUILT, BUILT_VALUES // images[0].size))
    flat = (
        np.unique(images[:most].reshape(len(images[:most]), -1), axis=0) / 255.0
    )  # (n, h, w, 3) -> (n, h*w*3)
    labels = np.random.default_rng([seed, 2]).integers(len(pictures.classes), size=len(flat))
    try:
        network = build_two_layers(flat, labels.astype(np.float64), seed)
    except DataError as error:
        return {"points": len(flat), "weights": None, "error": None, "said": error.message}
    wrong = np.rint(network(flat)).astype(int) != labels
    return {"points": len(flat), "weights": network.size, "error": float(wrong.mean())}


def chance_error(labels: NDArray[np.int64]) -> float:
    """Return the error of always naming the most frequent class: what no signal is needed for."""
    return float(1 - np.bincount(labels).max() / len(labels))


def conclude(learnt: dict[str, Learnt], chance: float) -> tuple[str, str]:
    """Return two sentences: what was found, and what it means for the next decision.

    The true labels are held against permuted ones: evenly drawn ones are harder than true ones without a
    signal wherever some class is frequent, since its frequency alone is learnt fast.

    Args:
        learnt: The conditions by name.
        chance: Error on the judged images that takes no signal (see `chance_error`).
    """
    true, noise = learnt["true labels"], learnt["permuted labels"]
    lead = spread([a - b for a, b in zip(true.early, noise.early, strict=True)])
    if true.epochs and noise.epochs:
        times = noise.epochs.mean / max(1.0, true.epochs.mean)
        speed = (
            f"The network learns the true labels in {true.epochs} epochs and permuted ones in "
            f"{noise.epochs}, {times:.1f} times as many"
        )
    elif true.epochs:
        speed = (
            f"The network learns the true labels in {true.epochs} epochs, and permuted ones in as many as "
            f"there are in {noise.fitted} of {noise.gap.n} seeds"
        )
    else:
        learnt_by = (
            f"the true labels in {true.fitted} of {true.gap.n} seeds and permuted ones in {noise.fitted}"
            if true.fitted or noise.fitted
            else "neither the true labels nor permuted ones"
        )
        speed = (
            f"In its epochs the network learns {learnt_by}; on the mean of all of them its training accuracy "
            f"on the true ones is ahead by {lead}"
        )
    found = (
        f"{speed}; with the true labels the error on images it has not seen is {true.test_error}, "
        f"{true.gap} above the training error (always naming the most frequent class errs by {chance:.3f})."
    )
    learns = chance - true.test_error.high > 1e-6  # naming the most frequent class, but for rounding
    if lead.verdict == "above" and learns:
        advice = "The labels carry a signal, so more images or a better start are worth their price."
    elif learns:
        advice = (
            "New images are answered better than by chance, but that true labels are learnt faster than "
            "permuted ones is not seen with this many seeds: take more --seeds, or more images."
        )
    elif lead.verdict == "above":
        advice = (
            "True labels are learnt faster than permuted ones, but new images are not seen to be answered "
            "better than by chance: take more images, and look for ones that stand in the data twice."
        )
    else:
        advice = (
            "No signal is seen: new images are answered no better than by chance, so check the labels and "
            "how the data is read before any training."
        )
    return found, advice


def report(
    learnt: dict[str, Learnt], answers: dict[MemoriseTraining, Answer], pictures: Pictures, title: str
) -> Result:
    """Return the study's figure, table, values and sentences."""
    rows: list[Row] = [
        {
            "condition": name,
            "epochs to fit": str(each.epochs) if each.epochs else f"in {each.fitted} of {each.gap.n} seeds",
            "train error": str(each.train_error),
            "test error": str(each.test_error),
            "gap": str(each.gap),
        }
        for name, each in learnt.items()
    ]
    bound, built = complexity(learnt), fit_built(pictures, 0)
    chance = chance_error(pictures.judged.labels)
    values: dict[str, Any] = {
        "conditions": {
            name: {
                "epochs_to_fit": describe(each.epochs) if each.epochs else None,
                "seeds_that_fit": each.fitted,
                "train_error": describe(each.train_error),
                "test_error": describe(each.test_error),
                "gap": describe(each.gap),
            }
            for name, each in learnt.items()
        },
        "chance_error": chance,
        "rademacher": describe(bound) if bound else None,
        "built": built,
    }
    curves = []
    for name, each in learnt.items():
        if each.condition.augment != "none" or each.condition.weight_decay or each.condition.dropout:
            continue
        mine = [answer["train_curve"] for key, answer in answers.items() if key.condition == each.condition]
        longest = max(map(len, mine))
        padded = np.array([curve + [curve[-1]] * (longest - len(curve)) for curve in mine])
        places = list(map(float, range(longest)))
        curves.append(Curve(name, places, [spread(column.tolist()) for column in padded.T]))
    return Result(
        study="memorise",
        title=title,
        sentences=conclude(learnt, chance),
        rows=rows,
        values=values,
        curves=curves,
        x="epochs",
        y="share of the training labels that are learnt",
        bounds=(0.0, 1.0),
    )
