"""What the commands of `surgery study` share: pictures in, trainings run, a result out."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    from surgery.study.parts import studies_root
    from surgery.study.result import write_result
    from surgery.study.runner import check_backend
    from surgery.train.device import check_device
    from surgery.train.interrupt import stoppable
    from surgery.train.reporting import Reporter

    check_backend(config.backend)
    check_device(config.device)
    report = Reporter()
    with stoppable("every training that had ended is kept", "Repeat the same command to go on from there."):
        result = ask(studies_root() / study, report)
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


def take_pictures(
    config: StudyConfig, network: str, size: int, folder: Path, report: Reporter, join_val: bool = True
) -> tuple[Pictures, str]:
    """Read and check the data, and keep its pixels for all trainings; returns them and their digest.

    Whether a val that was drawn from train is trained on, `join_val` says (see `read_pictures`).

    Raises:
        DataError: With all problems of the data.
        ConfigError: If the network takes no images so small; if the data is not of one label an image, or
            too much for the memory.
    """
    from surgery.data.targets import resolve_target
    from surgery.recipes.reading import read_checked
    from surgery.study.fitting import check_size
    from surgery.study.pictures import read_pictures, save_pictures

    side = config.image_size or size
    check_size(network, side)
    table, _ = read_checked(Path(config.data), "classify", resolve_target, report)
    with report.task("reading images") as task:
        pictures = read_pictures(table, side, config.per_class, progress=task.update, join_val=join_val)
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


def tell_finished(run: Callable[[Reporter], tuple[dict[str, Any], Path]], as_json: bool) -> None:
    """Run a study of finished models and print it; parts that an earlier call has finished are read.

    Args:
        run: Returns what was found, and the folder it lies in.
        as_json: Print one JSON object on stdout.

    Raises:
        SurgeryError: If the user stopped it; what is done is kept.
    """
    from surgery.train.interrupt import stoppable
    from surgery.train.reporting import Reporter

    report = Reporter()
    with stoppable("the parts that are done are kept", "Repeat the command to go on from there."):
        study, folder = run(report)
    if as_json:
        print(json.dumps(study))
    else:
        print((folder / "table.txt").read_text("utf-8"), end="")
    for sentence in study["said"]:
        report.line(sentence)
    report.line(f"next: open {folder / 'study.html'}")
