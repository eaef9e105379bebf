"""`surgery passport`: what a version is made of, and how far it has moved from where it began."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import surgery
from surgery.artifact.errors import ConfigError, SurgeryError, UserError
from surgery.artifact.passports import PAGE, VALUES, passport_folder
from surgery.artifact.store import Store

if TYPE_CHECKING:
    import torch

    from surgery.artifact.store import StoredVersion
    from surgery.data.table import Table
    from surgery.data.targets import TargetSpec
    from surgery.study.subject import Subject
    from surgery.train.reporting import Reporter

SCHEMA = 1
OF_BOTH = ("cka", "line", "barrier", "criticality")
"""Parts that need the start and the data."""


@dataclass(frozen=True)
class PassportConfig:
    """What a passport is written of, and how much is measured for it."""

    model: str
    """NAME, NAME@VERSION or NAME@ALIAS."""
    data: str | None = None
    """Folder of the data; else what the model was trained on."""
    images: int = 256
    """Images of each side of the data at most; a seeded choice of more."""
    seed: int = 0
    """Of everything that is drawn."""
    device: str = "auto"
    """`auto`, `cpu` or `cuda`."""


def passport(config: PassportConfig, as_json: bool = False) -> None:
    """Write the passport of a version beside it; what cannot be measured says why.

    Args:
        config: The user's wishes.
        as_json: Print it on stdout too.

    Raises:
        ModelNotFoundError: The store does not hold the version.
        StoreError: The store cannot be written to, or a file of the version is damaged.
        DiskFullError: There is no room.
    """
    if config.images < 4:
        raise ConfigError(f"--images {config.images}: 4 is the least, for CKA", "Give more, or leave it out.")
    from surgery.train.interrupt import stoppable
    from surgery.train.reporting import Reporter

    report = Reporter()
    with stoppable("the parts that are done are kept", "Repeat the command to go on from there."):
        values, page = run_passport(config, report)
    if as_json:
        print(json.dumps(values))
    for sentence in values["said"]:
        report.line(sentence)
    for part, reason in values["missing"].items():
        report.line(f"not in it: {part}: {reason}")
    report.line(f"passport: {page}")
    report.line("next: surgery models show " + f"{values['model']}@{values['version']}")


def run_passport(config: PassportConfig, report: Reporter) -> tuple[dict[str, Any], Path]:
    """Do all of `passport` but the printing; return its values and the file of its page."""
    from surgery.deliver.package import now
    from surgery.report.passport import render_passport
    from surgery.study.parts import plain, write_file
    from surgery.study.verdict import judge_passport

    stored = Store().resolve(config.model)
    manifest = stored.manifest
    values: dict[str, Any] = {
        "schema": SCHEMA,
        "model": stored.name,
        "version": stored.version,
        "task": manifest.task,
        "classes": list(manifest.output.classes),
        "written": now(),
        "surgery_version": surgery.__version__,
        "parent": manifest.parent,
        "weights": manifest.provenance.get("weights", {}),
        "strategy": manifest.strategy.get("name"),
        "backbone": manifest.backbone.get("name"),
        "head": manifest.head.get("name"),
        "layers": name_sources(stored),
        "scores": manifest.scores.get("scores", {}),
        "parity": manifest.parity,
        "calibration": manifest.scores.get("calibration"),
        "missing": {},
    }
    values |= measure(config, stored, values["missing"], report)
    values["said"] = judge_passport(values)
    values = plain(values)
    folder = passport_folder(stored)
    try:
        write_file(folder / VALUES, json.dumps(values, indent=2, sort_keys=True) + "\n")
        write_file(folder / PAGE, render_passport(values))  # comes last: it is what others look for
    except OSError as error:
        from surgery.artifact.disk import cannot_write

        raise cannot_write(folder, error) from error
    return values, folder / PAGE


def name_sources(stored: StoredVersion) -> list[dict[str, Any]]:
    """Return the parts of the network as the manifest has them, and where the weights of each came from."""
    known = stored.manifest.provenance
    weights = known.get("weights", {})
    place = weights.get("place") or weights.get("asked") or "pretrained weights"
    adapted = stored.manifest.parent if "adaptation" in known else None
    kept = str(adapted or weights.get("parent") or place)
    drawn = f"drawn at random, seed {known.get('seed', 0)}"
    parts = known.get("layers", {}).get("parts", [])
    return [{**part, "from": kept if str(part.get("fate")).startswith("kept") else drawn} for part in parts]


def measure(
    config: PassportConfig, stored: StoredVersion, missing: dict[str, str], report: Reporter
) -> dict[str, Any]:
    """Return what has to be measured: against the start, module by module, and the gap.

    Args:
        config: The user's wishes.
        stored: The version.
        missing: Gets the parts that cannot be measured, and why.
        report: Where progress is shown.
    """
    from surgery.recipes.study_compare import choose_device, read_data
    from surgery.study.subject import on_device, read_start, read_subject

    found: dict[str, Any] = dict.fromkeys(
        ("data", "images", "cka", "distance", "relative", "barrier", "line", "criticality", "gap", "depths")
    )
    device = choose_device(config.device)
    subject, start = on_device(read_subject(stored.ref), device), None
    try:
        start = on_device(read_start(subject), device)
    except UserError as error:
        missing |= dict.fromkeys(("distance", *OF_BOTH), error.message)
    else:
        found |= attempt(("distance",), missing, partial(measure_distance, config, subject, start))
    try:
        data = None if config.data is None else str(Path(config.data).resolve())
        table, targets = read_data(data, stored, report)
    except UserError as error:
        missing |= dict.fromkeys(("gap", *OF_BOTH), error.message)
        return found
    found["data"] = str(table.root)
    found |= attempt(("gap",), missing, partial(measure_gap, config, stored, table, targets, report))
    if start:
        sides = (subject, start, table, targets, device)
        step = partial(compare_with_start, config, sides, missing, report)
        found |= attempt(("cka", "line", "barrier"), missing, step)
        found |= attempt(("criticality",), missing, partial(measure_criticality, config, sides, report))
    return found


def attempt(
    parts: tuple[str, ...], missing: dict[str, str], measure_parts: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """Return what a step measures; where it cannot be, note why of all its parts and return nothing."""
    try:
        return measure_parts()
    except SurgeryError as error:
        missing |= dict.fromkeys(parts, error.message)
        return {}


def measure_distance(config: PassportConfig, subject: Subject, start: Subject) -> dict[str, Any]:
    """Return how far each module of a version moved from its start, and the stage of each."""
    from surgery.study.modules import list_modules
    from surgery.study.pairs import check_comparable, find_distances
    from surgery.study.parts import Parts, study_folder

    if reason := check_comparable(start, subject).get("distance"):
        raise ConfigError(reason)
    parts = Parts(study_folder(f"passport-{subject.label}"))
    depths = {module.name: module.stage for module in list_modules(subject.model)}
    return find_distances(start, subject, config.seed, parts) | {"depths": depths}


def measure_gap(
    config: PassportConfig, stored: StoredVersion, table: Table, targets: TargetSpec, report: Reporter
) -> dict[str, Any]:
    """Return the generalisation gap of val to train, of the graph that is served."""
    from surgery.artifact.session import open_version
    from surgery.deliver.parity import spread
    from surgery.deliver.scoring import score_graph
    from surgery.recipes.evaluate import state_gap

    items = table.of("val")
    if not items:
        raise ConfigError("there is no image in val")
    session = open_version(stored, config.device)
    chosen = [items[i] for i in spread(len(items), config.images)]
    with report.task(f"scoring {stored.ref}") as task:
        judged = score_graph(session, stored.manifest, chosen, targets, task.update)
    gap, reason = state_gap(session, stored, table, "val", judged, report)
    if gap is None:
        raise ConfigError(reason)
    return {"gap": gap.to_dict()}


Sides = tuple["Subject", "Subject", "Table", "TargetSpec", "torch.device"]
"""The version, its start, the data, which classes count, and where it is measured."""


def compare_with_start(
    config: PassportConfig, sides: Sides, missing: dict[str, str], report: Reporter
) -> dict[str, Any]:
    """Return CKA, mistakes and the line between a version and its start, on val."""
    from surgery.study.pairs import Samples, Wish, compare_pair
    from surgery.study.parts import Parts, study_folder
    from surgery.study.sample import draw_sample

    subject, start, table, targets, device = sides
    spec = subject.manifest.input
    sample = draw_sample(subject.model, table, targets, spec, "val", config.images, config.seed, device)
    parts = Parts(study_folder(f"passport-{subject.label}"))
    wish = Wish(config.seed, basin=0)
    pair = compare_pair(start, subject, Samples(sample), wish, parts, report)
    if "line" in pair["missing"]:
        missing |= dict.fromkeys(("line", "barrier"), pair["missing"]["line"])
    if "cka" in pair["missing"]:
        missing["cka"] = pair["missing"]["cka"]
    return {key: pair[key] for key in ("cka", "barrier", "line", "mistakes")} | {"images": sample.images}


def measure_criticality(config: PassportConfig, sides: Sides, report: Reporter) -> dict[str, Any]:
    """Return the criticality of every module, on train."""
    from surgery.study.depth import Search, check_rewindable, measure_modules
    from surgery.study.parts import Parts, study_folder
    from surgery.study.sample import draw_sample

    subject, start, table, targets, device = sides
    check_rewindable(subject, start)
    spec = subject.manifest.input
    sample = draw_sample(subject.model, table, targets, spec, "train", config.images, config.seed, device)
    parts = Parts(study_folder(f"passport-{subject.label}"))
    search = Search(seed=config.seed, draws=1)
    return {"criticality": measure_modules(subject, start.state, sample, search, parts, report)}
