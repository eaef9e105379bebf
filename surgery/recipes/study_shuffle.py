"""`surgery study shuffle`: what a pretrained start gives when images are cut into blocks and shuffled."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from surgery.config.study import StudyConfig

if TYPE_CHECKING:
    from surgery.study.result import Result
    from surgery.train.reporting import Reporter

BATCH = 32
SIZE, EPOCHS = 224, 10
LR, KEPT_SHARE = 1e-3, 1.0
BLOCKS = (224, 112, 56, 28, 14, 7)


def shuffle(
    config: StudyConfig,
    backbone: str = "tf_efficientnet_lite0",
    weights: str = "imagenet",
    blocks: tuple[int, ...] = (),
    permute: str = "one",
    as_json: bool = False,
) -> None:
    """Train from pretrained and from random weights on images whose blocks have changed places.

    Args:
        config: What all studies are told.
        backbone: The network.
        weights: As for `finetune`.
        blocks: Sides of the blocks, pixels; () for halves of the image's side, halved again and again.
        permute: `one` permutation for all images, or `each` image its own.
        as_json: Print one JSON object on stdout.

    Raises:
        UserError: If data, weights or options do not do.
    """
    from surgery.recipes.studying import run_study

    run_study(
        config, "shuffle",
        lambda folder, report: ask(config, backbone, weights, blocks, permute, folder, report), as_json,
    )  # fmt: skip


def ask(
    config: StudyConfig, backbone: str, weights: str, blocks: tuple[int, ...], permute: str, folder: Path,
    report: Reporter,
) -> Result:  # fmt: skip
    """Run the trainings and return what they say."""
    from surgery.recipes.studying import run_trainings, take_pictures
    from surgery.study import shuffle as study
    from surgery.study.fitting import Recipe
    from surgery.study.noise import check_block
    from surgery.study.start import name_start

    start, _ = name_start(backbone, weights)  # what is not to be had is said before the data is read
    pictures, digest = take_pictures(config, backbone, SIZE, folder, report)
    side = pictures.train.images.shape[1]
    blocks = tuple(sorted({*blocks, side}, reverse=True)) if blocks else halve(side)
    for block in blocks:
        check_block(side, block)
    recipe = Recipe(config.epochs or EPOCHS, config.batch_size or BATCH, LR, KEPT_SHARE, device=config.device)
    each = permute == "each"
    trainings = study.list_trainings(digest, backbone, start, blocks, each, recipe, config.seeds)
    answers = run_trainings(trainings, study.run_shuffle, config, folder, report)
    title = f"shuffle on {Path(config.data).resolve().name}, {backbone}"
    return study.report(study.summarise(answers), title, each)


def halve(side: int) -> tuple[int, ...]:
    """Return the side of an image and its halves, down to the first odd number or to 4 pixels."""
    found = [side]
    while found[-1] % 2 == 0 and found[-1] > 7:
        found.append(found[-1] // 2)
    return tuple(found)
