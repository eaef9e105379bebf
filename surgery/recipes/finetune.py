"""`surgery finetune`: data and a pretrained backbone in, a proven version of the store out."""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from surgery.artifact.errors import ConfigError
from surgery.artifact.store import Store, StoredVersion, check_name
from surgery.config import AUGMENTATIONS, CUSTOM, AdaptConfig, FinetuneConfig, check_task
from surgery.report import REPORT_FILE

if TYPE_CHECKING:
    from surgery.artifact.manifest import InputSpec
    from surgery.data.table import Table
    from surgery.data.targets import TargetSpec
    from surgery.nets.assemble import Model
    from surgery.nets.weights import LoadedWeights
    from surgery.train.reporting import Reporter

Config = TypeVar("Config", FinetuneConfig, AdaptConfig)

DEFAULT_HEAD = {"classify": "avg", "segment": "deconv"}
DEFAULT_AUGMENT = {"classify": "light", "segment": "flip"}
DEFAULT_BATCH = {"classify": 32, "segment": 4}
CLASSIFY_SIZE = (224, 224)
NATIVE_HEADROOM = 4
"""An image of more than this many times the largest training image's pixels is scaled down."""


def finetune(
    config: FinetuneConfig,
    resume: bool = False,
    promote: bool = False,
    as_json: bool = False,
    processes: int = 1,
) -> None:
    """Fine-tune, export, prove and store a model.

    Args:
        config: The user's wishes.
        resume: Go on with the newest unfinished run of this name, if there is one.
        promote: Make the new version production even if it is not the first.
        as_json: Print one JSON object on stdout.
        processes: Processes to train with, one for each GPU.

    Raises:
        UserError: If data, options or weights do not do; nothing is stored.
        ParityError: If the exported graph answers differently; nothing is stored.
    """
    from surgery.train.team import launched_rank, launched_size

    check_name(config.name)
    if config.strategy == "classical" and max(processes, launched_size()) > 1:
        raise ConfigError("--strategy classical works in one process", "Leave --processes out.")
    if processes > 1:
        from surgery.recipes.processes import launch

        sys.exit(launch(config, resume, promote, as_json, processes))
    from surgery.train.interrupt import stoppable
    from surgery.train.reporting import Reporter

    report = Reporter(quiet=launched_rank() > 0)
    with stoppable("what is done is kept", "Repeat the command with --resume to go on from there."):
        stored = run_finetune(config, resume, report)
    if stored is None:
        return
    store = Store()
    if promote:
        store.promote(stored.name, stored.version)
    production = store.aliases(stored.name).get("production") == stored.version
    manifest = stored.manifest
    if as_json:
        facts = {"model": stored.name, "version": stored.version, "production": production}
        facts |= {"path": str(stored.path), "report": str(stored.path / REPORT_FILE)}
        facts |= {"scores": manifest.scores, "parity": manifest.parity}
        json.dump(facts, sys.stdout)
        print()
    report.line(f"stored {stored.ref} in {stored.path}" + (" (production)" if production else ""))
    report.line(f"report: {stored.path / REPORT_FILE}")
    if not production:
        report.line(f"next: surgery models promote {stored.name} {stored.version}")
    report.line(f"next: surgery predict {stored.ref} IMAGE --out out/     or: bentoml serve")


def run_finetune(config: FinetuneConfig, resume: bool, report: Reporter) -> StoredVersion | None:
    """Do all of `finetune` but the last messages; returns the stored version, in the leading process."""
    from surgery.recipes.reading import read_to_train
    from surgery.train.interrupt import raise_if_requested

    started = time.monotonic()
    config = read_augment(config)
    table, targets = read_to_train(config, report)
    raise_if_requested()
    spec = resolve_input(config, table)
    try_augment(config, spec, table, targets)
    model, weights, config = prepare_model(config, table, targets)
    spec = dataclasses.replace(spec, mean=model.backbone.mean, std=model.backbone.std)
    config = resolve_config(config, model, spec, weights)
    if config.strategy == "classical":
        from surgery.recipes.classical import run_classical

        return run_classical(config, model, table, targets, spec, weights, resume, report)
    check_growth(config, spec, model.backbone.fixed_size)

    from surgery.recipes.plan import show_layers, show_phases
    from surgery.recipes.training import Material, build_loop, find_batch, find_rate
    from surgery.train.device import check_device, check_trackers, make_accelerator
    from surgery.train.run import RATES_FILE, open_run
    from surgery.train.strategies import plan_phases, resolve_rates
    from surgery.train.team import Team

    names = tuple(stage.name for stage in model.backbone.info)
    check_device(config.device)
    check_trackers(config.trackers)
    class_weights = weigh(config, table, targets, report)
    material = Material(model, table, targets, spec, class_weights)
    if config.batch_size is None:
        config = find_batch(config, material, names, DEFAULT_BATCH[table.task], resume, report)
    tested = None
    if config.lr is None and config.lr_rule == "range":
        config, tested = find_rate(config, material, names, resume, report)
    config = resolve_rates(config, table.task, names)
    phases = plan_phases(config, table.task, names)
    layers = show_layers(config, targets, model, min(phase.first for phase in phases), report)
    show_phases(config, phases, spec, report)
    team = Team(make_accelerator(config.device, config.precision))
    sha256 = weights.source.get("sha256")
    run = team.share(open_run(config, table, sha256, resume) if team.leads else None)
    assert run is not None
    if tested and team.leads:
        tested.save(run.folder / RATES_FILE)
    report.line(f"run {run.folder}" + ("" if run.resumed else " (--resume goes on with it after a stop)"))
    accelerator = make_accelerator(config.device, config.precision, run.folder, config.trackers)
    loop = build_loop(config, material, phases, accelerator, run.folder, report)
    outcome = loop.run(run.resumed)
    accelerator.end_training()
    raise_if_requested()
    if not team.leads:
        return None

    from surgery.deliver.package import Facts, find_stored, package
    from surgery.report.page import write_report

    facts = Facts(config, table, targets, spec, layers, phases, weights.source, outcome, run.folder)
    store = Store()
    stored = find_stored(store, config.name, run.folder) if run.resumed else None
    stored = stored or package(store, model, facts, report, functools.partial(write_report, report=report))
    run.finish(stored=stored.ref, seconds=time.monotonic() - started)
    return stored


def weigh(config: FinetuneConfig, table: Table, targets: TargetSpec, report: Reporter) -> list[float] | None:
    """Return how much each class counts in the loss, or None where all count the same."""
    if config.class_weights == "none":
        return None
    from surgery.data.balance import balanced_weights

    with report.task("counting classes") as task:
        weights = balanced_weights(table, targets, task.update)
    names = targets.output.classes[-len(weights) :]
    pairs = ", ".join(f"{name} {weight:.3g}" for name, weight in zip(names, weights, strict=True))
    report.line(f"class weights: {pairs}")
    return weights


def prepare_model(
    config: FinetuneConfig, table: Table, targets: TargetSpec
) -> tuple[Model, LoadedWeights, FinetuneConfig]:
    """Build the model from its weights; the config comes back with task, head and augmentation."""
    from surgery.nets.assemble import build_model
    from surgery.nets.weights import load_weights

    source = "random" if config.strategy == "random" else config.weights
    head = config.head or DEFAULT_HEAD[table.task]
    config = dataclasses.replace(
        config, task=table.task, head=head, augment=choose_augment(config, table), weights=source
    )
    check_task(config, table.task)
    weights = load_weights(config.backbone, source)
    outputs = 0 if config.strategy == "classical" else targets.output.logits
    model = build_model(
        config.backbone, head, table.task, outputs, config.stages or None,
        config.dropout, weights, config.seed,
    )  # fmt: skip
    model.test_flips = config.test_flips
    return model, weights, config


def read_augment(config: Config) -> Config:
    """Return the config with the steps of a pipeline of the user's in it, checked one by one.

    Raises:
        ConfigError: With all that is wrong with the pipeline.
    """
    if config.augment in ("auto", *AUGMENTATIONS):
        return config
    from surgery.data.pipeline import check_pipeline, read_pipeline

    if config.pipeline is None:
        steps = read_pipeline(Path(config.augment))
    else:
        steps = check_pipeline(config.pipeline, "pipeline")
    return dataclasses.replace(config, augment=CUSTOM, pipeline=tuple(steps))


def try_augment(config: FinetuneConfig, spec: InputSpec, table: Table, targets: TargetSpec) -> None:
    """Try a pipeline of the user's on noise.

    Raises:
        ConfigError: If it does not give what the network takes.
    """
    if config.pipeline is not None:
        from surgery.data.trial import try_pipeline

        try_pipeline(config.pipeline, spec, table, targets, choose_scales(config, table))


def choose_scales(config: FinetuneConfig, table: Table) -> tuple[float, ...]:
    """Return the shares of the input's sides that training goes through."""
    if config.resize_from == 1:
        return (1.0,)
    from surgery.train.strategies import RATES, plan_scales

    return plan_scales(config.resize_from, config.epochs or RATES[config.strategy].epochs[table.task])


def choose_augment(config: FinetuneConfig, table: Table) -> str:
    """Return the augmentation, the task's own where the user says none."""
    return DEFAULT_AUGMENT[table.task] if config.augment == "auto" else config.augment


def resolve_input(config: FinetuneConfig, table: Table) -> InputSpec:
    """Return how images become the network's input; mean and deviation are the backbone's to say."""
    from surgery.artifact.image import read_size
    from surgery.artifact.manifest import InputSpec

    if table.task == "segment" and config.image_size is None:
        sizes = [read_size(item.image) for item in table.items]
        pixels = max(width * height for width, height in sizes)
        return InputSpec(size_rule="native", max_pixels=NATIVE_HEADROOM * pixels)
    width, height = config.image_size or CLASSIFY_SIZE
    return InputSpec("crop" if table.task == "classify" else "resize", width, height)


def check_growth(config: FinetuneConfig, spec: InputSpec, side: int | None = None) -> None:
    """Refuse progressive resizing where there is no smaller input.

    Args:
        config: The user's wishes.
        spec: The input at its full size.
        side: The only one that the backbone takes, if there is one.

    Raises:
        ConfigError: If the backbone takes one size only, or the full size is as small as inputs get.
    """
    from surgery.data.resizing import MULTIPLE, shrink_input

    if config.resize_from == 1:
        return
    said = f"--resize-from {config.resize_from:g}"
    if side:
        raise ConfigError(
            f"{said}: {config.backbone} takes images of {side}×{side} only",
            "Leave it out, or take a convolutional network such as resnet50.",
        )
    if spec.size_rule != "native" and shrink_input(spec, config.resize_from) == spec:
        raise ConfigError(
            f"{said}: inputs of {spec.width}×{spec.height} cannot be made smaller: sides are rounded to a "
            f"multiple of {MULTIPLE}",
            "Take a smaller share or a larger --image-size, or leave it out.",
        )


def resolve_config(
    config: FinetuneConfig, model: Model, spec: InputSpec, weights: LoadedWeights
) -> FinetuneConfig:
    """Return the config with nothing left open but what is measured, so that its recipe repeats the run."""
    names = tuple(stage.name for stage in model.backbone.info)
    native = spec.size_rule == "native"
    fixed = config.strategy != "classical" and config.batch_rule == "given"
    return dataclasses.replace(
        config,
        data=str(Path(config.data).resolve()),
        weights=str(weights.source.get("asked", config.weights)),
        stages=tuple(names[k] for k in model.head_stages),
        image_size=None if native else (spec.width or 0, spec.height or 0),
        batch_size=config.batch_size or (DEFAULT_BATCH[model.task] if fixed else None),
    )
