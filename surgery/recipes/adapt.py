"""`surgery adapt`: a stored model and images without labels in, a proven variant for their domain out."""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from surgery.artifact.errors import ConfigError, DataError, StoreError
from surgery.artifact.store import Store, StoredVersion, check_name
from surgery.config import AdaptConfig
from surgery.report import REPORT_FILE

if TYPE_CHECKING:
    from surgery.data.table import Table
    from surgery.data.targets import TargetSpec
    from surgery.recipes.domains import Domains, Plan
    from surgery.train.reporting import Reporter
    from surgery.train.run import Run

METHOD = {"classify": "dann", "segment": "self-training"}
"""What did best in few epochs where nothing else was known: see docs/measured.md."""
BATCH = {"classify": 32, "segment": 4}
EPOCHS = {"classify": 20, "segment": 10}
PRETRAINED_SHARE = 0.1
"""Rate of pretrained stages as a share of the head's."""
LEAST_JUDGED = 2
"""Images of the source's val: a classifier of domains is judged on images that it has not seen."""
JUDGED = {"classify": 1000, "segment": 64}
"""Images of the target, evenly spread, that criteria are measured on."""


def adapt(config: AdaptConfig, resume: bool = False, promote: bool = False, as_json: bool = False) -> None:
    """Adapt a stored model, export, prove and store the variant.

    Args:
        config: The user's wishes.
        resume: Go on with the newest unfinished adaptation of this name, if there is one.
        promote: Make the new version production even if it is not the first.
        as_json: Print one JSON object on stdout.

    Raises:
        UserError: If model, data or options do not do; nothing is stored.
        ParityError: If the exported graph answers differently; nothing is stored.
    """
    from surgery.train.interrupt import stoppable
    from surgery.train.reporting import Reporter

    check_name(config.name)
    report = Reporter()
    with stoppable("what is done is kept", "Repeat the command with --resume to go on from there."):
        stored = run_adapt(config, resume, report)
    store = Store()
    if promote:
        store.promote(stored.name, stored.version)
    production = store.aliases(stored.name).get("production") == stored.version
    manifest = stored.manifest
    if as_json:
        facts = {"model": stored.name, "version": stored.version, "production": production}
        facts |= {"path": str(stored.path), "report": str(stored.path / REPORT_FILE)}
        facts |= {"parent": manifest.parent, "adaptation": manifest.provenance["adaptation"]}
        facts |= {"scores": manifest.scores, "parity": manifest.parity}
        json.dump(facts, sys.stdout)
        print()
    report.line(f"stored {stored.ref} in {stored.path}" + (" (production)" if production else ""))
    report.line(f"report: {stored.path / REPORT_FILE}")
    if not production:
        report.line(f"next: surgery models promote {stored.name} {stored.version}")
    report.line(f"next: surgery predict {stored.ref} IMAGE --out out/     or: bentoml serve")


def run_adapt(config: AdaptConfig, resume: bool, report: Reporter) -> StoredVersion:
    """Do all of `adapt` but the last messages; returns the stored version."""
    started = time.monotonic()
    store = Store()
    parent = store.resolve(config.model)
    check_parent(parent)
    from surgery.recipes.adapting import look, try_method
    from surgery.recipes.spooled import spool_taken
    from surgery.recipes.variant import package_variant
    from surgery.train.checkpoint import restore_weights
    from surgery.train.device import check_device, check_trackers, make_accelerator
    from surgery.train.reporting import Reporter

    check_device(config.device)
    check_trackers(config.trackers)
    with spool_taken(config, parent, resume) as taken:
        config, domains, plans, run = begin(taken, parent, resume, report)
    begun = {key: value.clone() for key, value in domains.model.state_dict().items()}
    accelerator = make_accelerator(config.device, config.precision)
    see = functools.partial(look, config, domains, accelerator=accelerator, report=report)
    looks = {place: see(each) for place, each in {each.place: each for each in plans}.items()}
    tried = []
    for each in plans:
        domains.model.load_state_dict(begun)
        folder = run.folder if len(plans) == 1 else run.folder / each.name
        tried.append(try_method(config, domains, each, folder, run.resumed, report))
    chosen = max(tried, key=lambda each: each.best["criteria"][config.choose_by])
    if len(tried) > 1:
        report.line(f"chosen by {config.choose_by}: {chosen.plan.name}, epoch {chosen.outcome.best_epoch}")
    if chosen.gain(config.choose_by) < 0:
        report.line(
            f"by {config.choose_by} the variant does not look better on the target than {config.model} does: "
            "compare their answers before you rely on it"
        )
    domains.model.load_state_dict(begun)
    restore_weights(domains.model, chosen.weights)
    after = see(chosen.plan, report=Reporter(quiet=True))  # what is cached has been told
    stored = package_variant(
        config, domains, parent, chosen, tried, (looks[chosen.plan.place], after), run, report
    )
    run.finish(stored=stored.ref, seconds=time.monotonic() - started)
    return stored


def begin(
    config: AdaptConfig, parent: StoredVersion, resume: bool, report: Reporter
) -> tuple[AdaptConfig, Domains, list[Plan], Run]:
    """Read and check all that a run takes, and open its folder; returns the resolved config first.

    Raises:
        UserError: If data or options do not do; there is no run then.
    """
    from surgery.data.balance import class_frequencies
    from surgery.nets.restore import WEIGHTS_FILE, restore_model
    from surgery.recipes.domains import Domains, plan
    from surgery.recipes.finetune import read_augment
    from surgery.train.run import open_run

    config = resolve(read_augment(config), parent)
    source, targets, target, labelled = read_domains(config, parent, report)
    with report.task("counting the source's classes") as task:
        prior = class_frequencies(source, targets, task.update).astype("float32")
    domains = Domains(restore_model(parent), parent.manifest, source, targets, target, labelled, prior)
    plans = [plan(config, domains, name) for name in config.methods]
    for each in plans:
        report.line(each.describe(domains))
    sha256 = parent.manifest.files[WEIGHTS_FILE]
    run = open_run(config, domains.source, sha256, resume, domains.target)
    report.line(f"run {run.folder}" + ("" if run.resumed else " (--resume goes on with it after a stop)"))
    return config, domains, plans, run


def check_parent(parent: StoredVersion) -> None:
    """Refuse a model that does not learn by steps, or answers several labels.

    Raises:
        ConfigError: If so.
    """
    manifest = parent.manifest
    if "classifier" in manifest.strategy:
        raise ConfigError(
            f"{parent.ref} ends in a classifier of scikit-learn, which no gradient passes",
            "Adapt a model of another strategy, such as --strategy frozen.",
        )
    if manifest.output.multilabel:
        raise ConfigError(
            f"{parent.ref} answers any of several labels; adaptation takes one label an image, or masks",
            "Train a model of one label an image.",
        )


def resolve(config: AdaptConfig, parent: StoredVersion) -> AdaptConfig:
    """Return the config with nothing left open, so that its recipe repeats the run."""
    task = parent.manifest.task
    return dataclasses.replace(
        config,
        model=parent.ref,
        methods=config.methods or (METHOD[task],),
        source=str(Path(config.source or parent.manifest.data["path"]).resolve()),
        target=tuple(str(Path(each).resolve()) for each in config.target),
        labels=None if config.labels is None else str(Path(config.labels).resolve()),
        epochs=config.epochs or EPOCHS[task],
        batch_size=config.batch_size or BATCH[task],
        backbone_lr_share=choose_share(parent)
        if config.backbone_lr_share is None
        else config.backbone_lr_share,
    )


def choose_share(parent: StoredVersion) -> float:
    """Return the rate of the stages as a share: lower where the first ancestor known was pretrained."""
    store = Store()
    first = parent
    while first.manifest.parent is not None:
        try:
            first = store.resolve(first.manifest.parent)
        except StoreError:
            break  # removed since
    return 1.0 if first.manifest.strategy["name"] == "random" else PRETRAINED_SHARE


def read_domains(
    config: AdaptConfig, parent: StoredVersion, report: Reporter
) -> tuple[Table, TargetSpec, Table, tuple[Table, TargetSpec] | None]:
    """Read the source, the target, and the target's labelled images where there are some.

    Raises:
        DataError: With what is wrong with the first of them that does not do.
    """
    from surgery.data.trial import try_pipeline
    from surgery.data.unlabelled import compare_domains, read_unlabelled
    from surgery.recipes.reading import read_as_trained

    manifest = parent.manifest
    if not Path(config.source).exists():
        raise DataError(f"{config.source}: the source is not there", "Say where it is: --source DATA.")
    source, targets = read_as_trained(Path(config.source), parent, report, config.skip_bad)
    judged = len(source.of("val"))
    if judged < LEAST_JUDGED:
        raise DataError(
            f"{config.source}: {judged} image{'' if judged == 1 else 's'} in val; "
            f"{LEAST_JUDGED} are needed to judge an epoch by",
            "Give --source with a larger val, in folders train/ and val/.",
        )
    if config.pipeline is not None:
        try_pipeline(config.pipeline, manifest.input, source, targets, (1.0,))
    roots = [Path(each) for each in config.target]
    with report.task("checking the target") as task:
        target, notes = read_unlabelled(
            roots, manifest.task, source.classes, JUDGED[manifest.task], config.skip_bad, task.update
        )
    for note in [*notes, *compare_domains(source, target)]:
        report.line(note)
    report.line(f"target: {', '.join(config.target)}: {len(target.of('train'))} images without labels")
    return source, targets, target, read_labelled(config, parent, report)


def read_labelled(
    config: AdaptConfig, parent: StoredVersion, report: Reporter
) -> tuple[Table, TargetSpec] | None:
    """Return the target's labelled images as val: those of test, else of val, else all where nothing says."""
    from surgery.recipes.reading import read_as_trained

    if config.labels is None:
        return None
    table, targets = read_as_trained(Path(config.labels), parent, report, config.skip_bad)
    items = table.of("test")
    if not items:
        items = table.of("val") if table.split_rule == "given" else list(table.items)
    report.line(
        f"{len(items)} images of the target have labels: they are scored, and nothing is chosen by them"
    )
    return dataclasses.replace(
        table, items=tuple(dataclasses.replace(item, split="val") for item in items)
    ), targets
