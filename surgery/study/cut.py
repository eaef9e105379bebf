"""Where to cut a pretrained backbone for somebody's own data: what to freeze, what to keep, what is new.

References:
    Yosinski et al. 2014, arXiv:1411.1792 (frozen and fine-tuned lower layers); Nadeau & Bengio 2003, Machine
    Learning 52 (comparing on repeated splits of the same images).
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from surgery.artifact.errors import ConfigError, DataError
from surgery.nets.assemble import Model, build_model
from surgery.nets.weights import LoadedWeights
from surgery.study.fitting import Recipe, fit
from surgery.study.pictures import Pictures, load_pictures
from surgery.study.result import Curve, Result, Row
from surgery.study.runner import Answer
from surgery.study.spread import MARGIN, Spread, describe, spread
from surgery.study.start import Start, load_start

TREATMENTS = ("head", "fresh", "kept", "fresh+")
"""Above the stage: `head`: nothing but a new head. `fresh`: new layers. `kept`: pretrained layers that learn.
Up to the stage all of these are frozen; in `fresh+` they learn too, under new layers."""
SAID = {
    "head": "freeze through {stage} and cut away what is above",
    "fresh": "freeze through {stage} and train new layers above",
    "kept": "freeze through {stage} and fine-tune what is above",
    "fresh+": "fine-tune through {stage} with new layers above",
}
JUDGED_SHARE = 0.2
CACHE_GIB = 10.0


@dataclass(frozen=True)
class CutTraining:
    """One network of the study.

    Attributes:
        data: Digest of the pictures.
        network: The backbone.
        weights: What names its weights.
        treatment: One of `TREATMENTS`.
        through: Stages up to the cut; 0: none, so that `kept` is full fine-tuning and `fresh` no transfer.
        recipe: How it learns.
        seed: Of the draw of the judged images and of all that is new.
    """

    data: str
    network: str
    weights: Start
    treatment: str
    through: int
    recipe: Recipe
    seed: int


@dataclass(frozen=True)
class Option:
    """A way to cut, and what it costs.

    Attributes:
        treatment: One of `TREATMENTS`.
        through: Stages up to the cut.
        stage: Name of the last of them; `the image` for none.
        trained: Parameters that learn.
        size: Parameters of the whole network.
    """

    treatment: str
    through: int
    stage: str
    trained: int
    size: int

    @property
    def name(self) -> str:
        """The option in words."""
        if self.through == 0:
            return "fine-tune all stages" if self.treatment == "kept" else "train all from random weights"
        return SAID[self.treatment].format(stage=self.stage)


def list_options(
    network: str, weights: LoadedWeights, classes: int, treatments: Sequence[str], lowest: bool
) -> list[Option]:
    """Return the ways to cut a backbone.

    Args:
        network: The backbone.
        weights: Its weights.
        classes: To tell apart.
        treatments: Some of `TREATMENTS`.
        lowest: Try the lower half of the stages too where layers of the backbone learn, and cutting at the
            image; a frozen backbone with a new head is tried at every stage.

    Raises:
        ConfigError: If there is no such treatment.
    """
    wrong = [name for name in treatments if name not in TREATMENTS]
    if wrong:
        raise ConfigError(f"--treat {', '.join(wrong)}: there is {', '.join(TREATMENTS)}", "Choose some.")
    whole = build_model(network, "avg", "classify", classes, None, 0.0, weights, 0)
    info, found = whole.backbone.info, []
    stages = len(info)
    for treatment in treatments:
        begin = 1 if treatment == "head" else 0 if lowest else max(1, stages // 2)
        end = stages if treatment == "head" else stages - 1
        for through in range(begin, end + 1):
            if through == 0 and treatment == "fresh+":
                continue  # nothing is kept: it is `fresh`
            head = (info[(through if treatment == "head" else stages) - 1].channels + 1) * classes
            above = 0 if treatment == "head" else sum(stage.parameters for stage in info[through:])
            below = sum(stage.parameters for stage in info[:through])
            trained = head + above + (below if treatment == "fresh+" else 0)
            name = info[through - 1].name if through else "the image"
            found.append(Option(treatment, through, name, trained, head + above + below))
    return found


def list_trainings(
    data: str, network: str, weights: Start, options: Sequence[Option], recipe: Recipe, seeds: int
) -> list[CutTraining]:
    """Return the trainings: each way to cut for each seed, the cheapest first."""
    ordered = sorted(options, key=lambda option: (option.trained, option.size))
    return [
        CutTraining(data, network, weights, option.treatment, option.through, recipe, seed)
        for option in ordered
        for seed in range(seeds)
    ]


def draw_judged(pictures: Pictures, seed: int) -> Pictures:
    """Return the training images alone, a fifth of each class held back to judge by.

    The data's own val is not looked at, so that it can still judge what is trained after this study.

    Raises:
        DataError: If a class has fewer than two images.
    """
    rng = np.random.default_rng([seed, 205])
    held = []
    for label, name in enumerate(pictures.classes):
        rows = np.flatnonzero(pictures.train.labels == label)
        if len(rows) < 2:
            raise DataError(f"{name} has {len(rows)} image to train on; two or more are needed", "Add some.")
        held.append(rng.permutation(rows)[: max(1, round(len(rows) * JUDGED_SHARE))])
    chosen = np.sort(np.concatenate(held))
    rest = np.setdiff1d(np.arange(len(pictures.train)), chosen)
    return Pictures(pictures.classes, pictures.train.take(rest), pictures.train.take(chosen))


def build_cut(training: CutTraining, classes: int, weights: LoadedWeights) -> Model:
    """Return the network of a training: pretrained up to the cut, and above as the treatment says."""
    stages: tuple[str, ...] | None = None
    seed, network = training.seed, training.network
    model = build_model(network, "avg", "classify", classes, None, training.recipe.dropout, weights, seed)
    if training.treatment == "head":
        stages = (model.backbone.info[training.through - 1].name,)
        return build_model(
            network, "avg", "classify", classes, stages, training.recipe.dropout, weights, seed
        )
    if training.treatment == "kept":
        return model
    new = build_model(
        network, "avg", "classify", classes, None, training.recipe.dropout, LoadedWeights(None, {}), seed
    )
    pairs = list(zip(model.backbone.stages, new.backbone.stages, strict=True))
    for old, fresh in pairs[training.through :]:
        old.load_state_dict(fresh.state_dict())
    return model


def run_cut(training: CutTraining, folder: Path) -> Answer:
    """Run one training (see `RunOne`); what is frozen is computed once for all trainings that share it."""
    pictures = draw_judged(load_pictures(folder.parent, training.data), training.seed)
    weights = load_start(training.network, training.weights)
    model = build_cut(training, len(pictures.classes), weights)
    first = 0 if training.treatment == "fresh+" else training.through
    new = training.treatment in ("fresh", "fresh+")
    fitted = fit(
        model, pictures, training.recipe, first, training.seed, folder,
        train_bn=new,
        cache_gib=CACHE_GIB if first else 0.0,
        new_from=training.through if new else None,
    )  # fmt: skip
    return {"accuracy": fitted.accuracy[-1], "judged": len(pictures.judged), "train": len(pictures.train)}


@dataclass(frozen=True)
class Judged:
    """A way to cut over the seeds.

    Attributes:
        option: Which.
        accuracy: On the judged images.
        behind: Accuracy of the best one minus this one's, paired by seed.
    """

    option: Option
    accuracy: Spread
    behind: Spread

    @property
    def equal(self) -> bool:
        """Whether it cannot be told from the best, and is not far behind it either."""
        return self.behind.verdict != "above" and self.behind.mean <= MARGIN


def judge(options: Sequence[Option], values: dict[Option, list[float]], reused: float) -> list[Judged]:
    """Return each way to cut with its interval, and how far it is behind the best, the best first.

    Args:
        options: Ways to cut.
        values: Accuracy of each, one a seed, the seeds in the same order.
        reused: Images judged over images trained on (see `spread`).
    """
    best = max(options, key=lambda option: (float(np.mean(values[option])), -option.trained))
    found = [
        Judged(
            option,
            spread(values[option], reused),
            spread([a - b for a, b in zip(values[best], values[option], strict=True)], reused),
        )
        for option in options
    ]
    return sorted(found, key=lambda each: (-each.accuracy.mean, each.option.trained))


def recommend(judged: Sequence[Judged]) -> Judged:
    """Return the cheapest way that cannot be told from the best: the fewest parameters that learn."""
    equal = (each for each in judged if each.equal)
    return min(equal, key=lambda each: (each.option.trained, each.option.size))


def summarise(options: Sequence[Option], answers: dict[CutTraining, Answer]) -> list[Judged]:
    """Return what the trainings say of each way to cut."""
    values: dict[Option, list[float]] = {}
    for option in options:
        mine = [
            (each.seed, answer["accuracy"])
            for each, answer in answers.items()
            if (each.treatment, each.through) == (option.treatment, option.through)
        ]
        values[option] = [accuracy for _, accuracy in sorted(mine)]
    one = next(iter(answers.values()))
    return judge(options, values, one["judged"] / one["train"])


@dataclass(frozen=True)
class Given:
    """What all ways to cut had in common, for the command that repeats one.

    Attributes:
        network: The backbone.
        weights: Where its weights come from, as `--weights` says it.
        side: Of the images, pixels.
    """

    network: str
    weights: str
    side: int


def conclude(judged: Sequence[Judged], given: Given) -> tuple[str, str]:
    """Return two sentences: what was found, and what it means for the next decision."""
    best, chosen = judged[0], recommend(judged)
    found = f"The best is to {best.option.name}: {best.accuracy}."
    if chosen.option == best.option:
        others = [each for each in judged[1:] if each.equal]
        found = (
            found[:-1]
            + f"; {len(others)} of {len(judged) - 1} others cannot be told from it, none is cheaper."
        )
    else:
        found = found[:-1] + (
            f"; to {chosen.option.name} gives {chosen.accuracy}, which cannot be told from it "
            f"(behind by {chosen.behind}) and trains {chosen.option.trained:,} parameters instead of "
            f"{best.option.trained:,}."
        )
    line = command(chosen.option, given)
    if line:
        return found, f"So {chosen.option.name}: {line}"
    advice = f"So {chosen.option.name}; finetune has no options for that."
    runnable = [each for each in judged if command(each.option, given)]
    if not runnable:
        return found, f"{advice} With --treat head,kept the study compares what it has options for."
    near = recommend(runnable) if any(each.equal for each in runnable) else runnable[0]
    return found, f"{advice} Next of what it can do, with {near.accuracy}: {command(near.option, given)}"


def command(option: Option, given: Given) -> str | None:
    """Return the command that trains a way to cut; None where there is none."""
    weights = "" if given.weights == "imagenet" else f" --weights {shlex.quote(given.weights)}"
    common = f"surgery finetune DATA --name NAME --backbone {given.network} --image-size {given.side}"
    if option.treatment == "head":
        return f"{common}{weights} --strategy frozen --stages {option.stage}"
    if option.treatment == "kept" and option.through:
        return f"{common}{weights} --strategy partial --freeze-through {option.stage}"
    if option.treatment == "kept":
        return f"{common}{weights} --strategy full"
    return f"{common} --strategy random" if option.through == 0 else None


def report(judged: Sequence[Judged], given: Given, title: str) -> Result:
    """Return the study's figure, table, values and sentences."""
    chosen = recommend(judged)
    rows: list[Row] = [
        {
            "cut": each.option.name,
            "accuracy": str(each.accuracy),
            "behind the best": str(each.behind),
            "trained": each.option.trained,
            "parameters": each.option.size,
            "": "recommended" if each is chosen else "equal" if each.equal else "",
        }
        for each in judged
    ]
    names = {each.option.through: each.option.stage for each in judged}
    curves = []
    for treatment in TREATMENTS:
        mine = sorted((e for e in judged if e.option.treatment == treatment), key=lambda e: e.option.through)
        if mine:
            places = [float(each.option.through) for each in mine]
            curves.append(Curve(treatment, places, [each.accuracy for each in mine], dashed="+" in treatment))
    values: dict[str, Any] = {
        "options": [
            {
                "treatment": each.option.treatment, "through": each.option.through,
                "stage": each.option.stage, "trained": each.option.trained, "parameters": each.option.size,
                "accuracy": describe(each.accuracy), "behind": describe(each.behind), "equal": each.equal,
            }
            for each in judged
        ],
        "recommended": {
            "treatment": chosen.option.treatment, "stage": chosen.option.stage,
            "command": command(chosen.option, given),
        },
    }  # fmt: skip
    return Result(
        study="cut",
        title=title,
        sentences=conclude(judged, given),
        rows=rows,
        values=values,
        curves=curves,
        x="stages up to the cut",
        y="accuracy on held-back images",
        ticks=[(float(k), names[k]) for k in sorted(names)],
    )
