"""`surgery study criticality`: which modules of a model depend on exactly the weights they have."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surgery.artifact.errors import ConfigError

if TYPE_CHECKING:
    from surgery.train.reporting import Reporter


@dataclass(frozen=True)
class CriticalityConfig:
    """What is measured, and how."""

    model: str
    """NAME, NAME@VERSION or NAME@ALIAS."""
    data: str | None = None
    """Folder of the data; else what the model was trained on."""
    split: str = "train"
    """Side of the data whose loss is bounded; the measure is defined on train."""
    images: int = 256
    """Images at most; a seeded choice of more."""
    epsilon: float = 0.1
    """How much of the way from the model's loss to that of guessing the loss may rise."""
    seeds: int = 1
    """How often each module is measured, with other noise."""
    draws: int = 3
    """Noises whose losses are averaged each time."""
    checkpoints: bool = False
    """Measure the checkpoints of the model's run too."""
    seed: int = 0
    """Of the choice of images and of the first noise."""
    device: str = "auto"
    """`auto`, `cpu` or `cuda`."""


def criticality(config: CriticalityConfig, as_json: bool = False) -> None:
    """Measure the criticality of every module; parts that an earlier call has finished are read.

    Args:
        config: The user's wishes.
        as_json: Print one JSON object on stdout.

    Raises:
        UserError: If model, data or options do not do.
    """
    check_config(config)
    from surgery.recipes.studying import tell_finished

    tell_finished(functools.partial(run_criticality, config), as_json)


def check_config(config: CriticalityConfig) -> None:
    """Refuse what cannot be measured.

    Raises:
        ConfigError: With all that is wrong.
    """
    wrong = []
    for name, value in (("--images", config.images), ("--seeds", config.seeds), ("--draws", config.draws)):
        if value < 1:
            wrong.append(f"{name} {value}: 1 is the least")
    if not 0 < config.epsilon < 1:
        wrong.append(f"--epsilon {config.epsilon:g}: it lies between 0 and 1")
    if wrong:
        raise ConfigError("\n".join(wrong), "See `surgery study criticality --help`.")


def run_criticality(config: CriticalityConfig, report: Reporter) -> tuple[dict[str, Any], Path]:
    """Do all of `criticality` but the printing; return what was found and the folder it lies in."""
    from surgery.recipes.study_compare import choose_device, read_data
    from surgery.report.criticality import draw_figure, render_criticality, tabulate
    from surgery.study.depth import Search, check_rewindable, measure_checkpoints, measure_modules
    from surgery.study.parts import Parts, study_folder, write_file
    from surgery.study.sample import draw_sample
    from surgery.study.subject import list_checkpoints, on_device, read_start, read_subject
    from surgery.study.verdict import judge_modules

    device = choose_device(config.device)
    subject = on_device(read_subject(config.model), device)
    start = on_device(read_start(subject), device)
    check_rewindable(subject, start)
    checkpoints = list_checkpoints(subject) if config.checkpoints else []
    table, targets = read_data(config.data, subject.stored, report)
    sample = draw_sample(
        subject.model,
        table,
        targets,
        subject.manifest.input,
        config.split,
        config.images,
        config.seed,
        device,
    )
    folder = study_folder(f"criticality-{subject.label}")
    parts = Parts(folder)
    search = Search(config.epsilon, config.seeds, config.seed, config.draws)
    study: dict[str, Any] = {
        "study": "criticality",
        "model": subject.label,
        "data": str(table.root),
        "split": config.split,
        "images": sample.images,
        "epsilon": config.epsilon,
        "seed": config.seed,
        "seeds": config.seeds,
        "draws": config.draws,
    }
    study |= measure_modules(subject, start.state, sample, search, parts, report)
    study["criticality"] = {row["module"]: row["criticality"] for row in study["modules"]}
    study["said"] = judge_modules(study["modules"], study)
    study["checkpoints"] = measure_checkpoints(
        subject, checkpoints, start.state, sample, search, parts, report
    )
    write_file(folder / "study.json", json.dumps(study, indent=2) + "\n")
    write_file(folder / "table.txt", tabulate(study))
    write_file(folder / "figure.png", draw_figure(study))
    write_file(folder / "study.html", render_criticality(study))
    return study, folder
