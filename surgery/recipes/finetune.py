"""`surgery finetune`: data and a pretrained backbone in, a proven version of the store out."""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surgery.artifact.errors import ConfigError, SurgeryError
from surgery.artifact.store import Store, StoredVersion, check_name
from surgery.config import FinetuneConfig
from surgery.report import REPORT_FILE

if TYPE_CHECKING:
    from surgery.artifact.manifest import InputSpec
    from surgery.data.table import Table
    from surgery.data.targets import TargetSpec
    from surgery.nets.assemble import Model
    from surgery.nets.weights import LoadedWeights
    from surgery.train.reporting import Reporter
    from surgery.train.strategies import Phase

DEFAULT_HEAD = {"classify": "avg", "segment": "deconv"}
DEFAULT_AUGMENT = {"classify": "light", "segment": "flip"}
DEFAULT_BATCH = {"classify": 32, "segment": 4}
CLASSIFY_SIZE = (224, 224)
NATIVE_HEADROOM = 4
"""An image of more than this many times the largest training image's pixels is scaled down."""


def finetune(
    config: FinetuneConfig, resume: bool = False, promote: bool = False, as_json: bool = False
) -> None:
    """Fine-tune, export, prove and store a model.

    Args:
        config: The user's wishes.
        resume: Go on with the newest unfinished run of this name, if there is one.
        promote: Make the new version production even if it is not the first.
        as_json: Print one JSON object on stdout.

    Raises:
        UserError: If data, options or weights do not do; nothing is stored.
        ParityError: If the exported graph answers differently; nothing is stored.
    """
    check_name(config.name)
    from surgery.train.interrupt import deferred_interrupts
    from surgery.train.reporting import Reporter

    report = Reporter()
    try:
        with deferred_interrupts():
            stored = run_finetune(config, resume, report)
    except KeyboardInterrupt:
        raise SurgeryError(
            "stopped; what is done is kept", "Repeat the command with --resume to go on from there."
        ) from None
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


def run_finetune(config: FinetuneConfig, resume: bool, report: Reporter) -> StoredVersion:
    """Do all of `finetune` but the last messages; returns the stored version."""
    from surgery.data.targets import resolve_target
    from surgery.recipes.reading import read_checked
    from surgery.train.interrupt import raise_if_requested

    started = time.monotonic()
    table, targets = read_checked(
        Path(config.data), config.task, lambda table: resolve_target(table, config.classes, config.ignore),
        report, config.val_share, config.seed, config.skip_bad,
    )  # fmt: skip
    raise_if_requested()
    model, weights, config = prepare_model(config, table, targets)
    spec = resolve_input(config, table, model)
    config = resolve_config(config, model, spec, weights)

    from surgery.train.engine import Loop, Options, check_device, make_accelerator
    from surgery.train.feed import Feed
    from surgery.train.losses import make_loss
    from surgery.train.run import open_run
    from surgery.train.strategies import plan_phases

    task = table.task
    phases = plan_phases(config, task, tuple(stage.name for stage in model.backbone.info))
    check_device(config.device)
    layers = show_plan(config, table, targets, model, phases, report)
    run = open_run(config, table.fingerprint(), weights.source.get("sha256"), resume)
    report.line(f"run {run.folder}" + ("" if run.resumed else " (--resume goes on with it after a stop)"))
    accelerator = make_accelerator(config.device, config.precision, run.folder)

    def open_feed(first: int) -> Feed:
        return Feed(
            model, first, table, spec, targets, config.augment,
            config.views if first > 0 else 0,
            config.seed, accelerator.device, config.workers, config.cache_gib,
            accelerator.mixed_precision, accelerator.autocast,
        )  # fmt: skip

    options = Options(
        config.batch_size or 1, config.weight_decay, config.warmup_share,
        config.clip_norm, config.train_bn or config.weights == "random", config.seed, config.keep_checkpoints,
        config.checkpoint_minutes,
    )  # fmt: skip
    loss = make_loss(targets.output, config.label_smoothing)
    loop = Loop(model, phases, open_feed, loss, options, accelerator, run.folder, report)
    outcome = loop.run(run.resumed)
    accelerator.end_training()
    raise_if_requested()

    from surgery.deliver.package import Facts, find_stored, package
    from surgery.report.page import write_report

    facts = Facts(config, table, targets, spec, layers, phases, weights.source, outcome, run.folder)
    store = Store()
    stored = find_stored(store, config.name, run.folder) if run.resumed else None
    stored = stored or package(store, model, facts, report, functools.partial(write_report, report=report))
    run.finish(stored=stored.ref, seconds=time.monotonic() - started)
    return stored


def prepare_model(
    config: FinetuneConfig, table: Table, targets: TargetSpec
) -> tuple[Model, LoadedWeights, FinetuneConfig]:
    """Build the model from its weights; the config comes back with task, head and augmentation."""
    from surgery.nets.assemble import build_model
    from surgery.nets.weights import load_weights

    source = "random" if config.strategy == "random" else config.weights
    head = config.head or DEFAULT_HEAD[table.task]
    augment = DEFAULT_AUGMENT[table.task] if config.augment == "auto" else config.augment
    config = dataclasses.replace(config, task=table.task, head=head, augment=augment, weights=source)
    if table.task == "segment" and config.label_smoothing:
        raise ConfigError("--label-smoothing is for classification", "Leave it out for masks.")
    weights = load_weights(config.backbone, source)
    model = build_model(
        config.backbone, head, table.task, targets.output.logits, config.stages or None,
        config.dropout, weights, config.seed,
    )  # fmt: skip
    return model, weights, config


def resolve_input(config: FinetuneConfig, table: Table, model: Model) -> InputSpec:
    """Return how images become the network's input."""
    from surgery.artifact.image import read_size
    from surgery.artifact.manifest import InputSpec

    common: dict[str, Any] = {"mean": model.backbone.mean, "std": model.backbone.std}
    if table.task == "segment" and config.image_size is None:
        sizes = [read_size(item.image) for item in table.items]
        pixels = max(width * height for width, height in sizes)
        return InputSpec(size_rule="native", max_pixels=NATIVE_HEADROOM * pixels, **common)
    width, height = config.image_size or CLASSIFY_SIZE
    common |= {"width": width, "height": height}
    return InputSpec("crop" if table.task == "classify" else "resize", **common)


def resolve_config(
    config: FinetuneConfig, model: Model, spec: InputSpec, weights: LoadedWeights
) -> FinetuneConfig:
    """Return the config with nothing left open, so that its recipe repeats the run for good."""
    from surgery.train.strategies import resolve_rates

    names = tuple(stage.name for stage in model.backbone.info)
    native = spec.size_rule == "native"
    config = dataclasses.replace(
        config,
        data=str(Path(config.data).resolve()),
        weights=str(weights.source.get("asked", config.weights)),
        stages=tuple(names[k] for k in model.head_stages),
        image_size=None if native else (spec.width or 0, spec.height or 0),
        batch_size=config.batch_size or DEFAULT_BATCH[model.task],
    )
    return resolve_rates(config, model.task, names)


def describe_views(config: FinetuneConfig, phase: Phase) -> str:
    """Return in words what a phase sees of an image."""
    if config.augment == "none" or (phase.first > 0 and config.views == 1):
        return "each image as it is"
    kept = (
        f"{config.views} views kept of an image"
        if phase.first > 0 and config.views
        else "new views every epoch"
    )
    return f"augmentation {config.augment}, {kept}"


def show_plan(
    config: FinetuneConfig, table: Table, targets: TargetSpec, model: Model, phases: Any, report: Reporter
) -> dict[str, Any]:
    """Print what is kept, frozen, retrained and new, in layers and parameters; return it."""
    from surgery.nets.assemble import describe_layers

    first = min(phase.first for phase in phases)
    layers = describe_layers(model, first, config.weights != "random")
    report.line(f"{config.task}: {', '.join(targets.output.classes)}")
    report.line(f"{config.backbone} from {config.weights}, head {config.head}, strategy {config.strategy}")
    for part in layers["parts"]:
        size = f"{part['layers']:>4} layers{part['parameters']:>12,} parameters"
        report.line(f"  {part['name']:<12}{size}  {part['fate']}")
    report.line(f"  {layers['trained']:,} parameters are trained")
    for phase in phases:
        report.line(
            f"phase {phase.name}: {phase.epochs} epochs, rate {phase.lr:g}, {describe_views(config, phase)}"
        )
    return layers
