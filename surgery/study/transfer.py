"""How far up a network's layers are general: copy the first n, freeze them or not, and train the rest.

References:
    Yosinski et al. 2014, arXiv:1411.1792, sections 2 and 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from surgery.artifact.errors import ConfigError
from surgery.study.fitting import Recipe, fit, make_network
from surgery.study.pictures import load_pictures
from surgery.study.result import Curve, Result, Row
from surgery.study.runner import Answer, find_answer, key_of
from surgery.study.spread import Spread, describe, spread

TREATMENTS = ("BnB", "BnB+", "AnB", "AnB+", "random")
"""Copied from the own half or the other one, frozen or (+) fine-tuned; and frozen as they were drawn."""
PAPER = {
    "BnB": (0.627, 0.624, 0.621, 0.605, 0.594, 0.619, 0.623),
    "AnB": (0.628, 0.624, 0.619, 0.600, 0.578, 0.581, 0.543),
    "base": (0.625,),
}
"""Top-1 on half of ImageNet by n = 1 … 7 (figure 2); AnB+ lies between .636 and .647."""
NEW_SEED = 1000
"""Added to a seed where new layers must not start as those of the base did."""


@dataclass(frozen=True)
class TransferTraining:
    """One network of the study.

    Attributes:
        data: Digest of the pictures.
        network: The backbone, with random weights.
        target: Classes that it learns.
        source: Classes of the base whose layers it begins with; () for none.
        treatment: `base`, or one of `TREATMENTS`.
        n: Layers that are copied, or frozen at random.
        recipe: How it learns.
        seed: Of the half and of all that is drawn.
    """

    data: str
    network: str
    target: tuple[str, ...]
    source: tuple[str, ...]
    treatment: str
    n: int
    recipe: Recipe
    seed: int

    @property
    def frozen(self) -> int:
        """Stages that do not learn."""
        return 0 if self.treatment in ("base", "BnB+", "AnB+") else self.n


def draw_halves(classes: Sequence[str], seed: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return two halves of the classes, drawn at random; the first has one more where their number is odd."""
    order = np.random.default_rng([seed, 1411]).permutation(len(classes))
    middle = (len(classes) + 1) // 2
    first, second = (tuple(sorted(classes[k] for k in part)) for part in (order[:middle], order[middle:]))
    return first, second


def check_groups(groups: dict[str, Any], classes: Sequence[str], where: str) -> dict[str, tuple[str, ...]]:
    """Return two named groups of classes.

    Raises:
        ConfigError: With all that is wrong with them.
    """
    hint = "Two names with a list of classes each, such as `natural: [bird, cat]`."
    if not isinstance(groups, dict) or len(groups) != 2:
        raise ConfigError(f"{where}: not two named groups of classes", hint)
    problems, seen = [], set()
    for name, members in groups.items():
        if not isinstance(members, list) or len(members) < 2:
            problems.append(f"{where}: {name} is not a list of two classes or more")
            continue
        for member in map(str, members):
            if member not in classes:
                problems.append(f"{where}: {name}: the data has no class {member!r}")
            if member in seen:
                problems.append(f"{where}: {member!r} stands twice")
            seen.add(member)
    if problems:
        raise ConfigError("\n".join(problems), f"The data has: {', '.join(classes)}. {hint}")
    return {str(name): tuple(map(str, members)) for name, members in groups.items()}


def list_bases(
    data: str, network: str, halves: Sequence[tuple[tuple[str, ...], tuple[str, ...]]], recipe: Recipe
) -> list[TransferTraining]:
    """Return the trainings that must come first: a base for each half and seed.

    Args:
        data: Digest of the pictures.
        network: The backbone.
        halves: The two groups of classes, one pair a seed.
        recipe: How they learn.
    """
    return [
        TransferTraining(data, network, half, (), "base", 0, recipe, seed)
        for seed, pair in enumerate(halves)
        for half in pair
    ]


def list_trainings(bases: Sequence[TransferTraining], layers: Sequence[int]) -> list[TransferTraining]:
    """Return what begins with layers of the bases, in both directions, for each number of layers."""
    found = []
    for own in bases:
        (other,) = (each for each in bases if each.seed == own.seed and each.target != own.target)
        sources = {"BnB": own.target, "BnB+": own.target, "AnB": other.target, "AnB+": other.target}
        for n in layers:
            for treatment in TREATMENTS:
                source = sources.get(treatment, ())
                found.append(
                    TransferTraining(
                        own.data, own.network, own.target, source, treatment, n, own.recipe, own.seed
                    )
                )
    return found


def base_of(training: TransferTraining) -> TransferTraining:
    """Return the base whose layers a training begins with."""
    return TransferTraining(
        training.data, training.network, training.source, (), "base", 0, training.recipe, training.seed
    )


def run_transfer(training: TransferTraining, folder: Path) -> Answer:
    """Run one training (see `RunOne`); a base leaves its weights in the study's folder."""
    from surgery.train.checkpoint import load_tensors, write_tensors

    pictures = load_pictures(folder.parent, training.data).of(training.target)
    based = training.treatment == "base"
    model = make_network(
        training.network,
        len(training.target),
        training.recipe.dropout,
        None,
        training.seed + (0 if based else NEW_SEED),
    )
    if training.source:
        base = load_tensors(weights_of(base_of(training), folder.parent))
        copy_layers(model, base, training.n)
    seed = training.seed if based else training.seed + NEW_SEED
    fitted = fit(model, pictures, training.recipe, training.frozen, seed, folder)
    if based:
        write_tensors(weights_of(training, folder.parent), model.state_dict(), {})
    return {"accuracy": fitted.accuracy[-1], "loss": fitted.loss}


def weights_of(base: TransferTraining, folder: Path) -> Path:
    """Return where a base keeps its weights."""
    return folder / f"{key_of(base)}.safetensors"


def copy_layers(model: Any, base: dict[str, Any], n: int) -> None:
    """Put the first n stages of a base into a model, their batch-norm statistics too."""
    wanted = {key: value for key, value in base.items() if _stage_of(key) in range(n)}
    model.load_state_dict(wanted, strict=False)


def _stage_of(key: str) -> int:
    parts = key.split(".")
    return int(parts[2]) if parts[:2] == ["backbone", "stages"] else -1


def forget_lost(bases: Sequence[TransferTraining], folder: Path) -> None:
    """Drop the answers of bases whose weights are gone, so that they are trained again."""
    for base in bases:
        if find_answer(base, folder) is not None and not weights_of(base, folder).exists():
            (folder / f"{key_of(base)}.json").unlink()


@dataclass(frozen=True)
class Curves:
    """What the trainings say together.

    Attributes:
        layers: The n.
        base: Accuracy of the bases.
        curves: By treatment a spread for each n.
        adaptation: base − BnB: what is lost where layers that were learnt together are parted.
        specificity: BnB − AnB: what is lost where they were learnt for other classes.
        total: base − AnB.
        tuned: AnB+ − base.
        falls: Slope of AnB against n, accuracy a layer.
    """

    layers: tuple[int, ...]
    base: Spread
    curves: dict[str, list[Spread]]
    adaptation: list[Spread]
    specificity: list[Spread]
    total: list[Spread]
    tuned: list[Spread]
    falls: Spread


def summarise(answers: dict[TransferTraining, Answer], layers: Sequence[int]) -> Curves:
    """Return the curves; both directions of a seed are averaged first, intervals are over seeds."""
    seeds = sorted({each.seed for each in answers})

    def value(treatment: str, n: int, seed: int) -> float:
        found = [
            answer["accuracy"]
            for each, answer in answers.items()
            if (each.treatment, each.n, each.seed) == (treatment, n, seed)
        ]
        return float(np.mean(found))

    table = {t: np.array([[value(t, n, s) for s in seeds] for n in layers]) for t in TREATMENTS}  # (n, seeds)
    base = np.array([value("base", 0, seed) for seed in seeds])
    slopes = np.polyfit(layers, table["AnB"], 1)[0] if len(layers) > 1 else np.zeros(len(seeds))  # (seeds,)

    def each_n(rows: np.ndarray) -> list[Spread]:
        return [spread(row.tolist()) for row in rows]

    return Curves(
        tuple(layers),
        spread(base.tolist()),
        {name: each_n(rows) for name, rows in table.items()},
        each_n(base - table["BnB"]),
        each_n(table["BnB"] - table["AnB"]),
        each_n(base - table["AnB"]),
        each_n(table["AnB+"] - base),
        spread(slopes.tolist()),
    )


def conclude(curves: Curves) -> tuple[str, str]:
    """Return two sentences: what was found, and what it means for the next decision."""
    safe = list(takewhile(lambda k: curves.total[k].loss == "none", range(len(curves.layers))))
    upto = curves.layers[safe[-1]] if safe else 0
    last, known = curves.total[-1], upto or curves.total[0].loss == "some"
    if upto:
        kept = f"Up to layer {upto} the other half's layers, copied and frozen, lose nothing that can be told"
    elif known:
        kept = "Already the first layers of the other half, copied and frozen, lose accuracy"
    else:
        kept = "Whether the first layers of the other half, copied and frozen, lose accuracy cannot be told"
    found = (
        f"{kept} (the base has {curves.base}); at layer {curves.layers[-1]} they lose {last}: "
        f"{curves.adaptation[-1]} since layers that were learnt together are parted, and "
        f"{curves.specificity[-1]} since they were learnt for other classes."
    )
    where = f"Freeze up to layer {upto} and train the rest" if upto else "Freeze no layer"
    if not known:
        where = "Take more --seeds before a layer is frozen"
    return found, f"{where}; copying all layers and fine-tuning them {_judge_tuned(curves.tuned[-1])}."


def _judge_tuned(tuned: Spread) -> str:
    """Say what fine-tuning from a copy gains over training from scratch; `tuned` is what it gains."""
    lost = Spread(-tuned.mean, tuned.half, tuned.n)
    if tuned.verdict == "above":
        return f"beats training from scratch ({tuned.mean:+.3f}), so it is the better start"
    if lost.loss == "some":
        return f"is behind training from scratch ({tuned.mean:+.3f}), so it is no help here"
    if lost.loss == "none":
        return (
            f"cannot be told from training from scratch ({tuned.mean:+.3f}), so it is a safe start, no more"
        )
    return (
        f"gave {tuned.mean:+.3f} against training from scratch, and whether it helps or harms cannot be told "
        "from these seeds"
    )


def compare_signs(curves: Curves) -> list[dict[str, str]]:
    """Return the paper's three findings, ours, and whether they agree."""
    middle = [k for k, n in enumerate(curves.layers) if 3 <= n <= 5]
    dips = [curves.adaptation[k] for k in middle]
    deepest = max(dips, key=lambda each: each.mean) if dips else None
    mean_tuned = float(np.mean([each.mean for each in curves.tuned]))
    worse = [n for n, each in zip(curves.layers, curves.tuned, strict=True) if each.verdict == "below"]
    agree = {"below": "agrees", "above": "disagrees", "open": "open"}
    rows = [
        {
            "paper": "AnB falls with n",
            "ours": f"slope {curves.falls.mean:+.4f} ± {curves.falls.half or 0:.4f} a layer",
            "agrees": agree[curves.falls.verdict],
        }
    ]
    if deepest is not None:
        rows.append(
            {
                "paper": "BnB dips in the middle",
                "ours": f"base − BnB is {deepest} at most for n = 3 … 5",
                "agrees": {"above": "agrees", "below": "disagrees", "open": "does not at this size"}[
                    deepest.verdict
                ],
            }
        )
    rows.append(
        {
            "paper": "AnB+ is at least base",
            "ours": f"AnB+ − base is {mean_tuned:+.4f} on the mean"
            + (f", below at n = {', '.join(map(str, worse))}" if worse else ", below at no n"),
            "agrees": "disagrees" if worse else ("agrees" if mean_tuned >= 0 else "open"),
        }
    )
    return rows


def report(curves: Curves, answers: dict[TransferTraining, Answer], title: str) -> Result:
    """Return the study's figure, table, values and sentences."""
    rows: list[Row] = [{"n": 0, "base": str(curves.base)}]
    for k, n in enumerate(curves.layers):
        row: Row = {"n": n}
        row |= {name: str(found[k]) for name, found in curves.curves.items()}
        row |= {"co-adaptation": str(curves.adaptation[k]), "specificity": str(curves.specificity[k])}
        rows.append(row)
    lines = [
        Curve(name, list(map(float, curves.layers)), found, dashed="+" in name, faint=name == "random")
        for name, found in curves.curves.items()
    ]
    lines.append(Curve("base", [0.0, float(curves.layers[-1])], [curves.base] * 2, faint=True))
    values = {
        "layers": list(curves.layers),
        "base": describe(curves.base),
        "curves": {name: [describe(each) for each in found] for name, found in curves.curves.items()},
        "co_adaptation": [describe(each) for each in curves.adaptation],
        "specificity": [describe(each) for each in curves.specificity],
        "slope": describe(curves.falls),
        "paper": {name: list(found) for name, found in PAPER.items()},
        "signs": compare_signs(curves),
        "trainings": [
            {
                "target": list(each.target), "source": list(each.source), "treatment": each.treatment,
                "n": each.n, "seed": each.seed, "accuracy": answer["accuracy"],
            }
            for each, answer in answers.items()
        ],
    }  # fmt: skip
    return Result(
        study="transfer",
        title=title,
        sentences=conclude(curves),
        rows=rows,
        values=values,
        curves=lines,
        x="layers copied (n)",
        y="accuracy",
    )
