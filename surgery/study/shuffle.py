"""What a pretrained start still gives when the blocks of all images have changed places.

References:
    Neyshabur et al. 2020, arXiv:2008.11687, section 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from surgery.study.fitting import Recipe, fit, make_network
from surgery.study.noise import shuffle_blocks
from surgery.study.pictures import load_pictures
from surgery.study.result import Curve, Result, Row
from surgery.study.runner import Answer
from surgery.study.spread import Spread, describe, spread
from surgery.study.start import Start, load_start

STARTS = ("pretrained", "random")


@dataclass(frozen=True)
class ShuffleTraining:
    """One network of the study.

    Attributes:
        data: Digest of the pictures.
        network: The backbone.
        weights: What names those of the pretrained start.
        start: One of `STARTS`.
        block: Side of a block, pixels; the side of the image leaves images whole.
        each: One permutation for each image, else one for all.
        recipe: How it learns.
        seed: Of the permutations and of all that is new.
    """

    data: str
    network: str
    weights: Start
    start: str
    block: int
    each: bool
    recipe: Recipe
    seed: int


def list_trainings(
    data: str, network: str, weights: Start, blocks: Sequence[int], each: bool, recipe: Recipe, seeds: int
) -> list[ShuffleTraining]:
    """Return the trainings: both starts for each size of a block and each seed."""
    return [
        ShuffleTraining(data, network, weights, start, block, each, recipe, seed)
        for seed in range(seeds)
        for block in blocks
        for start in STARTS
    ]


def run_shuffle(training: ShuffleTraining, folder: Path) -> Answer:
    """Run one training (see `RunOne`): all layers learn, from either start."""
    pictures = load_pictures(folder.parent, training.data)
    pictures = shuffle_blocks(pictures, training.block, training.each, training.seed)
    kept = training.start == "pretrained"
    weights = load_start(training.network, training.weights) if kept else None
    model = make_network(
        training.network, len(pictures.classes), training.recipe.dropout, weights, training.seed
    )
    # Both with the batch's statistics: those of whole images are wrong for shuffled ones.
    fitted = fit(model, pictures, training.recipe, 0, training.seed, folder)
    return {"accuracy": fitted.accuracy[-1], "loss": fitted.loss}


@dataclass(frozen=True)
class Gains:
    """What the trainings say together, by size of a block from whole images down.

    Attributes:
        blocks: The sizes, falling.
        accuracy: By start.
        gain: Pretrained minus random, paired by seed.
        kept: Gain at the smallest blocks minus gain with whole images.
    """

    blocks: tuple[int, ...]
    accuracy: dict[str, list[Spread]]
    gain: list[Spread]
    kept: Spread


def summarise(answers: dict[ShuffleTraining, Answer]) -> Gains:
    """Return accuracies and gains with their intervals over seeds."""
    blocks = tuple(sorted({each.block for each in answers}, reverse=True))
    seeds = sorted({each.seed for each in answers})
    value = {(each.start, each.block, each.seed): answer["accuracy"] for each, answer in answers.items()}
    gains = {
        block: [value["pretrained", block, seed] - value["random", block, seed] for seed in seeds]
        for block in blocks
    }
    least, most = gains[blocks[-1]], gains[blocks[0]]
    return Gains(
        blocks,
        {
            start: [spread([value[start, block, seed] for seed in seeds]) for block in blocks]
            for start in STARTS
        },
        [spread(gains[block]) for block in blocks],
        spread([a - b for a, b in zip(least, most, strict=True)]),
    )


def conclude(gains: Gains) -> tuple[str, str]:
    """Return two sentences: what was found, and what it means for the next decision."""
    helped = [block for block, gain in zip(gains.blocks, gains.gain, strict=True) if gain.verdict == "above"]
    first, last = gains.gain[0], gains.gain[-1]
    found = (
        f"The pretrained start gains {first} with images whole and {last} with blocks of {gains.blocks[-1]} "
        "pixels; "
    )
    found += (
        f"it is seen to help down to blocks of {min(helped)}." if helped else "at no size is it seen to help."
    )
    if not helped and first.small:
        return found, "The pretrained weights give next to nothing here: try another backbone."
    if not helped:
        return (
            found,
            "Whether the pretrained weights help cannot be told from these seeds: take more --seeds.",
        )
    if last.verdict == "above" and (gains.kept.verdict == "open" or last.mean > first.mean / 2):
        advice = (
            "Much of the gain outlives the shuffling, so it is low-level features and statistics that "
            "transfer: the lower layers are what to keep."
        )
    elif gains.kept.verdict == "below" or last.mean <= first.mean / 2:
        advice = (
            "Most of the gain goes with the order of the blocks, so it is features of whole objects that "
            "transfer: keep the upper layers too, and cut late."
        )
    else:
        advice = (
            "How much of the gain outlives the shuffling cannot be told from these seeds: take more --seeds."
        )
    return found, advice


def report(gains: Gains, title: str, each: bool) -> Result:
    """Return the study's figure, table, values and sentences."""
    rows: list[Row] = [
        {
            "block": block,
            "pretrained": str(gains.accuracy["pretrained"][k]),
            "random": str(gains.accuracy["random"][k]),
            "gain": str(gains.gain[k]),
        }
        for k, block in enumerate(gains.blocks)
    ]
    places = [float(block) for block in gains.blocks]
    curves = [Curve(start, places, gains.accuracy[start]) for start in STARTS]
    curves.append(Curve("gain", places, gains.gain, dashed=True))
    return Result(
        study="shuffle",
        title=f"{title}, one permutation for {'each image' if each else 'all images'}",
        sentences=conclude(gains),
        rows=rows,
        values={
            "blocks": list(gains.blocks),
            "permutation": "each image its own" if each else "one for all images",
            "accuracy": {start: [describe(s) for s in found] for start, found in gains.accuracy.items()},
            "gain": [describe(s) for s in gains.gain],
            "change": describe(gains.kept),
        },
        curves=curves,
        x="side of a block, pixels",
        y="accuracy",
        log_x=True,
        ticks=[(float(block), str(block)) for block in gains.blocks],
    )
