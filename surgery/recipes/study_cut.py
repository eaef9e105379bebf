"""`surgery study cut`: where to cut a pretrained backbone for the user's own data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from surgery.config.study import StudyConfig

if TYPE_CHECKING:
    from surgery.study.result import Result
    from surgery.train.reporting import Reporter

BATCH = 32
SIZE, EPOCHS = 128, 15
LR, KEPT_SHARE = 2e-3, 0.05
TREATMENTS = ("head", "kept", "fresh")


def cut(
    config: StudyConfig,
    backbone: str = "vgg16",
    weights: str = "imagenet",
    treatments: tuple[str, ...] = (),
    lowest: bool = False,
    as_json: bool = False,
) -> None:
    """Freeze up to each stage, keep, replace or cut away what is above, and recommend one way.

    Args:
        config: What all studies are told.
        backbone: The network.
        weights: As for `finetune`.
        treatments: Some of `study.cut.TREATMENTS`; () for those that freeze.
        lowest: Cut at the lower stages too where layers of the backbone learn.
        as_json: Print one JSON object on stdout.

    Raises:
        UserError: If data, weights or options do not do.
    """
    from surgery.recipes.studying import run_study

    run_study(
        config, "cut",
        lambda folder, report: ask(config, backbone, weights, treatments, lowest, folder, report), as_json,
    )  # fmt: skip


def ask(
    config: StudyConfig, backbone: str, weights: str, treatments: tuple[str, ...], lowest: bool, folder: Path,
    report: Reporter,
) -> Result:  # fmt: skip
    """Run the trainings and return what they say."""
    from surgery.recipes.studying import run_trainings, take_pictures
    from surgery.study import cut as study
    from surgery.study.fitting import Recipe
    from surgery.study.start import name_start

    start, loaded = name_start(backbone, weights)  # what is not to be had is said before the data is read
    pictures, digest = take_pictures(config, backbone, SIZE, folder, report, join_val=False)
    options = study.list_options(backbone, loaded, len(pictures.classes), treatments or TREATMENTS, lowest)
    recipe = Recipe(config.epochs or EPOCHS, config.batch_size or BATCH, LR, KEPT_SHARE, device=config.device)
    trainings = study.list_trainings(digest, backbone, start, options, recipe, config.seeds)
    report.line(f"{len(options)} ways to cut {backbone}, {config.seeds} draws of the judged images for each")
    answers = run_trainings(trainings, study.run_cut, config, folder, report)
    title = f"cut of {backbone} for {Path(config.data).resolve().name}"
    given = study.Given(backbone, start.word, pictures.train.images.shape[1])
    return study.report(study.summarise(options, answers), given, title)
