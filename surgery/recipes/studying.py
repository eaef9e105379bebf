"""What the commands of `surgery study` share: pictures in, trainings run, a result out."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surgery.artifact.errors import SurgeryError
from surgery.config.study import StudyConfig

if TYPE_CHECKING:
    from surgery.study.pictures import Pictures
    from surgery.study.result import Result
    from surgery.train.reporting import Reporter


def run_study(
    config: StudyConfig, study: str, ask: Callable[[Path, Reporter], Result], as_json: bool
) -> None:
    """Run a study from the data to the printed sentences.

    Args:
        config: What all studies are told.
        study: Its name.
        ask: Runs its trainings in a folder and returns what they say.
        as_json: Print one JSON object on stdout.

    Raises:
        UserError: If data or options do not do.
        SurgeryError: If the user stopped it; what is done is kept.
    """
    from surgery.study.result import write_result
    from surgery.study.runner import check_backend, studies_root
    from surgery.train.device import check_device
    from surgery.train.interrupt import deferred_interrupts
    from surgery.train.reporting import Reporter

    check_backend(config.backend)
    check_device(config.device)
    report = Reporter()
    try:
        with deferred_interrupts():
            result = ask(studies_root() / study, report)
    except KeyboardInterrupt:
        raise SurgeryError(
            "stopped; every training that had ended is kept", "Repeat the same command to go on from there."
        ) from None
    folder = config.out or studies_root() / f"{study}-{Path(config.data).resolve().name}"
    body = write_result(result, folder)
    if as_json:
        json.dump(
            {"folder": str(folder), **json.loads((folder / "study.json").read_text("utf-8"))}, sys.stdout
        )
        print()
    else:
        from surgery.study.result import to_text

        print(to_text(result.rows))
        print("\n".join(body["sentences"]))
    report.line(f"figure, table and values: {folder}")


def take_pictures(config: StudyConfig, size: int, folder: Path, report: Reporter) -> tuple[Pictures, str]:
    """Read and check the data, and keep its pixels for all trainings; returns them and their digest.

    Raises:
        DataError: With all problems of the data.
        ConfigError: If it is not of one label an image, or too much for the memory.
    """
    from surgery.data.targets import resolve_target
    from surgery.recipes.reading import read_checked
    from surgery.study.pictures import read_pictures, save_pictures

    table, _ = read_checked(Path(config.data), "classify", resolve_target, report)
    with report.task("reading images") as task:
        pictures = read_pictures(table, config.image_size or size, config.per_class, progress=task.update)
    side = pictures.train.images.shape[1]
    report.line(
        f"{len(pictures.train)} images to train on, {len(pictures.judged)} to judge by, {side}×{side}, "
        f"{len(pictures.classes)} classes"
    )
    return pictures, save_pictures(pictures, folder)


def run_trainings(
    trainings: Any, run_one: Any, config: StudyConfig, folder: Path, report: Reporter
) -> dict[Any, dict[str, Any]]:
    """Run a study's trainings as its options say (see `study.runner.run_all`)."""
    from surgery.study.runner import run_all

    return run_all(trainings, run_one, folder, report, config.jobs, config.backend)
