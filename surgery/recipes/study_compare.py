"""`surgery study compare`: two models, or runs from pretrained and from random starts, side by side."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surgery.artifact.errors import ConfigError, DataError

if TYPE_CHECKING:
    import torch

    from surgery.artifact.store import StoredVersion
    from surgery.data.table import Table
    from surgery.data.targets import TargetSpec
    from surgery.study.pairs import Samples
    from surgery.study.subject import Subject
    from surgery.train.reporting import Reporter


@dataclass(frozen=True)
class CompareConfig:
    """What is compared, and how."""

    models: tuple[str, ...] = ()
    """Two models (see `read_subject`); or none, and the next two."""
    pretrained: tuple[str, ...] = ()
    """Versions that were trained from pretrained weights."""
    random: tuple[str, ...] = ()
    """Versions that were trained from random starts."""
    data: str | None = None
    """Folder of the data; else what the first model was trained on."""
    split: str = "val"
    """Side of the data that is judged."""
    images: int = 500
    """Images at most; a seeded choice of more."""
    points: int = 11
    """Places on the line."""
    bn: str = "keep"
    """`keep`, or `reestimate`: batch norm is measured anew at every place of the line."""
    basin: int = 10
    """Points drawn for each condition of a basin; 0: none."""
    seed: int = 0
    """Of everything that is drawn."""
    device: str = "auto"
    """`auto`, `cpu` or `cuda`."""


def compare(config: CompareConfig, as_json: bool = False) -> None:
    """Compare models; parts that an earlier call has finished are read, not computed.

    Args:
        config: The user's wishes.
        as_json: Print one JSON object on stdout.

    Raises:
        UserError: If models, data or options do not do.
    """
    check_config(config)
    from surgery.recipes.studying import tell_finished

    tell_finished(functools.partial(run_compare, config), as_json)


def check_config(config: CompareConfig) -> None:
    """Refuse what cannot be compared.

    Raises:
        ConfigError: With all that is wrong.
    """
    wrong = []
    groups = (*config.pretrained, *config.random)
    if groups and config.models:
        wrong.append("two models, or --pretrained and --random; both were given")
    elif groups and len(groups) < 2:
        wrong.append("--pretrained and --random name one model; two are needed together")
    elif not groups and len(config.models) != 2:
        wrong.append(f"{len(config.models)} model(s) named; two are compared")
    if config.points < 3:
        wrong.append(f"--points {config.points}: 3 is the least")
    if config.images < 4:
        wrong.append(f"--images {config.images}: 4 is the least, for CKA")
    if config.bn not in ("keep", "reestimate"):
        wrong.append(f"--bn {config.bn}: there is keep and reestimate")
    if config.basin < 0:
        wrong.append(f"--basin {config.basin}: 0 or more points")
    if wrong:
        hint = "Write `surgery study compare MODEL MODEL [DATA]`, or --pretrained A B --random C D."
        raise ConfigError("\n".join(wrong), hint)


def run_compare(config: CompareConfig, report: Reporter) -> tuple[dict[str, Any], Path]:
    """Do all of `compare` but the printing; return what was found and the folder it lies in."""
    from surgery.report.comparison import draw_figure, render_comparison, tabulate
    from surgery.study.groups import Groups, compare_groups
    from surgery.study.measure import chance_loss
    from surgery.study.pairs import Wish, check_group, compare_pair
    from surgery.study.parts import Parts, study_folder, write_file
    from surgery.study.subject import on_device, read_subject
    from surgery.study.verdict import judge_groups, judge_pair

    device = choose_device(config.device)
    words = config.models or (*config.pretrained, *config.random)
    subjects = [on_device(read_subject(word), device) for word in words]
    if not config.models:
        check_group(subjects)
    table, targets = read_data(config.data, subjects[0].stored, report)
    samples = draw_samples(config, subjects[0], table, targets, device)
    wish = Wish(config.seed, config.points, config.bn, config.basin)
    labels = [subject.label for subject in subjects]
    folder = study_folder("compare-" + "-".join(labels))
    parts = Parts(folder)
    study: dict[str, Any] = {
        "study": "compare",
        "models": labels,
        "data": str(table.root),
        "split": config.split,
        "images": samples.judged.images,
        "seed": config.seed,
        "bn": config.bn,
    }
    if config.models:
        study |= compare_pair(subjects[0], subjects[1], samples, wish, parts, report)
        study["said"] = judge_pair(study, chance_loss(targets.output))
    else:
        count = len(config.pretrained)
        groups = Groups(tuple(subjects[:count]), tuple(subjects[count:]), device)
        study |= {"pretrained": labels[:count], "random": labels[count:]}
        study |= compare_groups(groups, samples, wish, parts, report)
        study["said"] = judge_groups(study)
    write_file(folder / "study.json", json.dumps(study, indent=2) + "\n")
    write_file(folder / "table.txt", tabulate(study))
    write_file(folder / "figure.png", draw_figure(study))
    write_file(folder / "study.html", render_comparison(study))
    return study, folder


def read_data(data: str | None, stored: StoredVersion, report: Reporter) -> tuple[Table, TargetSpec]:
    """Read the data of a study: the folder given, else what a model was trained on.

    Raises:
        DataError: If it is not there, or holds other classes.
    """
    from surgery.recipes.reading import read_as_trained

    root = Path(data or stored.manifest.data.get("path", ""))
    if not root.exists():
        raise DataError(
            f"{root}: the data that {stored.ref} was trained on is not there"
            if data is None
            else f"{root}: there is no such folder",
            "Say where it is: name the folder behind the models.",
        )
    return read_as_trained(root, stored, report)


def draw_samples(
    config: CompareConfig, subject: Subject, table: Table, targets: TargetSpec, device: torch.device
) -> Samples:
    """Return the images that are judged, and training images where batch norm is measured anew."""
    from surgery.study.pairs import Samples
    from surgery.study.sample import draw_sample

    spec = subject.manifest.input

    def draw(split: str) -> Any:
        return draw_sample(subject.model, table, targets, spec, split, config.images, config.seed, device)

    return Samples(draw(config.split), draw("train") if config.bn == "reestimate" else None)


def choose_device(device: str) -> torch.device:
    """Return where a study runs.

    Raises:
        ConfigError: If `cuda` is asked for and not there.
    """
    import torch

    from surgery.train.device import check_device, keep_freed_memory

    check_device(device)
    if device == "cpu" or not torch.cuda.is_available():
        keep_freed_memory()
        return torch.device("cpu")
    return torch.device("cuda")
