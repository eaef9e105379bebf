"""`surgery study checkpoints`: whether a longer pretraining transfers better, from one run's checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from surgery.config.study import StudyConfig

if TYPE_CHECKING:
    from surgery.study.result import Result
    from surgery.train.reporting import Reporter

BATCH = 32
EPOCHS, LR, KEPT_SHARE = 10, 1e-3, 0.2


def checkpoints(
    config: StudyConfig, run: Path, most: int | None = None, frozen: bool = False, as_json: bool = False
) -> None:
    """Fine-tune from the checkpoints of a run.

    Args:
        config: What all studies are told.
        run: Folder of a run with `--keep-checkpoints all`.
        most: Take so many checkpoints at most, evenly spread.
        frozen: Train the head alone.
        as_json: Print one JSON object on stdout.

    Raises:
        UserError: If run, data or options do not do.
    """
    from surgery.recipes.studying import run_study

    run_study(
        config, "checkpoints", lambda folder, report: ask(config, run, most, frozen, folder, report), as_json
    )


def ask(
    config: StudyConfig, run: Path, most: int | None, frozen: bool, folder: Path, report: Reporter
) -> Result:
    """Run the trainings and return what they say."""
    from surgery.recipes.studying import run_trainings, take_pictures
    from surgery.study import checkpoints as study
    from surgery.study.fitting import Recipe

    begun = study.read_run(run)
    points = study.list_checkpoints(run, most)
    size = (begun["image_size"] or [224])[0]
    report.line(
        f"{len(points)} checkpoints of {begun['backbone']}, epochs {points[0].epoch} to {points[-1].epoch}"
    )
    _, digest = take_pictures(config, begun["backbone"], size, folder, report)
    recipe = Recipe(config.epochs or EPOCHS, config.batch_size or BATCH, LR, KEPT_SHARE, device=config.device)
    trainings = study.list_trainings(digest, begun, points, frozen, recipe, config.seeds)
    answers = run_trainings(trainings, study.run_checkpoint, config, folder, report)
    title = f"checkpoints of {run.resolve().name} on {Path(config.data).resolve().name}"
    return study.report(study.summarise(answers), title)
