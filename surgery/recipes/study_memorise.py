"""`surgery study memorise`: whether the labels carry a signal, against labels and pixels that do not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from surgery.config.study import StudyConfig

if TYPE_CHECKING:
    from surgery.study.result import Result
    from surgery.train.reporting import Reporter

BATCH = 64
SIZE, EPOCHS, LR = 32, 60, 2e-3


def memorise(
    config: StudyConfig, network: str = "yosinski_small", regularised: bool = True, as_json: bool = False
) -> None:
    """Train on true and on random labels and pixels, until they are learnt.

    Args:
        config: What all studies are told.
        network: A backbone, trained from random weights.
        regularised: With augmentation, weight decay and dropout too.
        as_json: Print one JSON object on stdout.

    Raises:
        UserError: If data or options do not do.
    """
    from surgery.recipes.studying import run_study

    run_study(
        config, "memorise", lambda folder, report: ask(config, network, regularised, folder, report), as_json
    )


def ask(config: StudyConfig, network: str, regularised: bool, folder: Path, report: Reporter) -> Result:
    """Run the trainings and return what they say."""
    from surgery.recipes.studying import run_trainings, take_pictures
    from surgery.study import memorise as study
    from surgery.study.fitting import Recipe

    pictures, digest = take_pictures(config, network, SIZE, folder, report)
    conditions = study.CONDITIONS + (study.REGULARISED if regularised else ())
    recipe = Recipe(config.epochs or EPOCHS, config.batch_size or BATCH, LR, device=config.device)
    trainings = study.list_trainings(digest, network, conditions, recipe, config.seeds)
    answers = run_trainings(trainings, study.run_memorise, config, folder, report)
    title = f"memorise on {Path(config.data).resolve().name}"
    return study.report(study.summarise(answers), answers, pictures, title)
