"""From a trained model to a version of the store: export, parity, scores, manifest, all or nothing."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import surgery
from surgery.artifact.image import prepare_image, read_image
from surgery.artifact.manifest import InputSpec, Manifest
from surgery.artifact.selftest import write_selftest
from surgery.artifact.session import Session, open_session
from surgery.artifact.store import Store, StoredVersion
from surgery.config import AdaptConfig, FinetuneConfig, save_recipe
from surgery.data.splits import record_split
from surgery.data.table import Item, Table
from surgery.data.targets import TargetSpec
from surgery.deliver.calibrate import calibrate, gather, measure
from surgery.deliver.classifier import CLASSIFIER_FILE, Classifier, join_classifier, open_classifier
from surgery.deliver.export import export_onnx
from surgery.deliver.parity import check_parity, spread
from surgery.deliver.scoring import Scored, score_graph
from surgery.deliver.statistics import add_statistics
from surgery.nets.assemble import Model
from surgery.nets.restore import WEIGHTS_FILE, restore_model
from surgery.train.checkpoint import write_tensors
from surgery.train.interrupt import raise_if_requested
from surgery.train.options import Outcome
from surgery.train.reporting import Reporter
from surgery.train.run import RATES_FILE
from surgery.train.strategies import Phase

SPLIT_FILE = "split.json"
"""The side of each image by its sha256, where val was drawn."""
MAX_TEST_IMAGES = 2000
"""Test images, evenly spread, that the calibration is measured on."""


@dataclass(frozen=True)
class Adapted:
    """What a manifest tells of an adaptation."""

    recipe: AdaptConfig
    """The whole resolved config, which repeats the run."""
    method: str
    facts: dict[str, Any]
    """Source, target, parent, and what was measured, as plain values."""
    images: list[Path]
    """Images of the target, on which parity is checked too."""


@dataclass(frozen=True)
class Facts:
    """What a manifest tells of a run."""

    config: FinetuneConfig
    table: Table
    targets: TargetSpec
    input: InputSpec
    layers: dict[str, Any]
    phases: tuple[Phase, ...]
    source: dict[str, Any]
    outcome: Outcome
    run: Path
    classifier: Classifier | None = None
    """What answers behind the model, whose logits are features then."""
    adaptation: Adapted | None = None
    """How a stored model was adapted to another domain, where that is what the run did."""


@dataclass(frozen=True)
class Unsealed:
    """A version that is proven and whole but for what is still to be written about it."""

    folder: Path
    """Where its files lie; what is added here becomes part of it."""
    manifest: Manifest
    """All of it but `version` and `files`."""
    table: Table
    targets: TargetSpec
    val: Scored
    """What the graph made of val."""


Write = Callable[[Unsealed], None]
"""Adds files to a version."""


def package(
    store: Store, model: Model, facts: Facts, report: Reporter, write: Write | None = None
) -> StoredVersion:
    """Export a trained model, prove it and put it into the store.

    The scores in the manifest are those of the exported graph on val, from image bytes to answer.

    Args:
        store: Where the version goes.
        model: The trained model.
        facts: What the manifest tells of the run.
        report: Where progress is shown.
        write: Adds files to the version before it is sealed.

    Raises:
        ParityError: If the graph does not answer as the model does; nothing is stored.
        DiskFullError: If there is no room; nothing is stored.
    """
    config = facts.config
    with store.stage(config.name) as staging:
        manifest = describe(facts, model)
        adapted = facts.adaptation
        manifest, val = prove(
            staging.path, model, manifest, facts.table, facts.targets, report, facts.classifier,
            adapted.images if adapted else None,
        )  # fmt: skip
        if facts.outcome.before:
            scores = {"before": facts.outcome.before} | manifest.scores
            manifest = dataclasses.replace(manifest, scores=scores)
        metadata = {"backbone": config.backbone, "head": str(config.head)}
        write_tensors(staging.path / WEIGHTS_FILE, dict(model.state_dict()), metadata)
        save_recipe(adapted.recipe if adapted else config, staging.path / "recipe.yaml")
        write_json(staging.path / "history.json", {"epochs": facts.outcome.history})
        if facts.table.split_rule != "given":
            write_json(staging.path / SPLIT_FILE, record_split(facts.table.items))
        if (facts.run / RATES_FILE).exists():
            shutil.copyfile(facts.run / RATES_FILE, staging.path / RATES_FILE)
        if write:
            write(Unsealed(staging.path, manifest, facts.table, facts.targets, val))
        return staging.commit(manifest)


def find_stored(store: Store, name: str, run: Path) -> StoredVersion | None:
    """Return the version that a run has already put into the store, if it was killed just after."""
    for version in reversed(store.list_versions(name)):
        stored = store.resolve(f"{name}@{version}")
        if stored.manifest.strategy.get("run") == run.name:
            return stored
    return None


def export_again(
    store: Store,
    parent: StoredVersion,
    table: Table,
    targets: TargetSpec,
    report: Reporter,
    write: Write | None = None,
) -> StoredVersion:
    """Export a stored version's weights again and store the result as the next version.

    A classifier's temperature is fitted again on the val given; where that decides none, the parent's stays.

    Raises:
        ParityError: If the graph does not answer as the weights do; nothing is stored.
    """
    model = restore_model(parent)
    known = parent.manifest.strategy.get("classifier")
    classifier = open_classifier(parent.path, known) if known else None
    with store.stage(parent.name) as staging:
        copy_files(parent, staging.path)
        files = parent.manifest.graphs.values()
        for file in {*files} - {parent.manifest.graph}:
            (staging.path / file).unlink()  # made from another graph than the one that is written now
        manifest = dataclasses.replace(
            parent.manifest,
            precision="fp32",
            serve={"cpu": parent.manifest.graph, "cuda": parent.manifest.graph},
            graphs={},
            speed={},
            parent=parent.ref,
            created=now(),
            surgery_version=surgery.__version__,
        )
        manifest, val = prove(staging.path, model, manifest, table, targets, report, classifier)
        scores = {"data": str(table.root), "fingerprint": table.fingerprint(), **manifest.scores}
        manifest = dataclasses.replace(manifest, scores=scores)
        if write:
            write(Unsealed(staging.path, manifest, table, targets, val))
        return staging.commit(manifest)


def copy_files(parent: StoredVersion, folder: Path) -> None:
    """Copy a version's files, all but its manifest."""
    for name in parent.manifest.files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(parent.path / name, folder / name)


def prove(
    folder: Path,
    model: Model,
    manifest: Manifest,
    table: Table,
    targets: TargetSpec,
    report: Reporter,
    classifier: Classifier | None = None,
    others: Sequence[Path] | None = None,
) -> tuple[Manifest, Scored]:
    """Export a model into a folder, check parity on val, score and calibrate the graph, add its statistics.

    Args:
        others: Images without labels that the model was adapted to: parity is checked on as many of them as
            of val, and the statistics are of them, too. None if they are not at hand, or there are none.

    Returns:
        The manifest with all of it, and what the graph made of val.
    """
    val = table.of("val")
    graph = folder / manifest.graph
    report.line("exporting to ONNX")
    export_onnx(model, manifest.task, manifest.input, graph)
    if classifier is not None:
        (folder / CLASSIFIER_FILE).write_bytes(classifier.graph)
        join_classifier(graph, classifier)
    report.line("checking parity from image bytes to answer")
    compared = [item.image for item in val]
    compared += [others[i] for i in spread(len(others), len(val))] if others else []
    compare = functools.partial(check_parity, model, graph=graph, images=compared, classifier=classifier)
    parity = compare(manifest)
    session = open_session(graph, "cpu")
    if val:
        image = prepare_image(read_image(val[0].image), manifest.input)
        write_selftest(folder, session, image, fixed=manifest.task == "classify")
    scored = _score(session, manifest, val, targets, report, "scoring the exported graph on val")
    report.line("  ".join(f"{key} {value:.4f}" for key, value in scored.scores.scores.items()))
    scores: dict[str, Any] = {"split": "val", **scored.scores.to_dict()}
    if manifest.task == "classify":
        held = manifest.output
        manifest, scores["calibration"] = _calibrate(session, manifest, scored, table, targets, report)
        if manifest.output != held:  # the gate judges the probabilities that will be answered
            parity = compare(manifest)
    report.line(
        f"parity: {parity['images']} images, largest difference {parity['max_difference']:.2g} "
        f"(logits up to {parity['largest_logit']:.3g}), answers equal"
    )
    write_json(folder / "parity.json", parity)
    add_statistics(folder, session, manifest, table, scored, report, others)
    return dataclasses.replace(manifest, parity=parity, scores=scores), scored


def _score(
    session: Session, manifest: Manifest, items: list[Item], targets: TargetSpec, report: Reporter, name: str
) -> Scored:
    with report.task(name) as task:

        def show(done: int, images: int) -> None:
            task.update(done, images)
            raise_if_requested()

        return score_graph(session, manifest, items, targets, show)


def _calibrate(
    session: Session,
    manifest: Manifest,
    val: Scored,
    table: Table,
    targets: TargetSpec,
    report: Reporter,
) -> tuple[Manifest, dict[str, Any]]:
    """Return the manifest with a temperature fitted on val, and what to tell of it, on test too."""
    output, facts = calibrate(gather(val.images, manifest.output), manifest.output)
    facts = {"split": "val"} | facts
    said = f"temperature {output.temperature:g}"
    report.line(
        f"{said}: calibration error {facts['ece_before']:.4f} before, {facts['ece_after']:.4f} after, on val"
        if facts["fitted"]
        else f"{said}, none fitted on val: {facts['note']}"
    )
    manifest = dataclasses.replace(manifest, output=output)
    test = table.of("test")
    if test:
        chosen = [test[i] for i in spread(len(test), MAX_TEST_IMAGES)]
        judged = _score(session, manifest, chosen, targets, report, "measuring the calibration on test")
        facts["test"] = measure(gather(judged.images, output), output)
        error = facts["test"]["ece_after"]
        report.line(f"on {len(chosen)} test images the calibration error is {error:.4f}")
    return manifest, facts


def describe(facts: Facts, model: Model) -> Manifest:
    """Return the manifest but for scores and parity."""
    config, table = facts.config, facts.table
    strategy = {
        "name": config.strategy,
        "phases": [dataclasses.asdict(phase) for phase in facts.phases],
        "best_epoch": facts.outcome.best_epoch,
        "epochs": max(0, len(facts.outcome.history) - 1),
        "seconds": round(facts.outcome.seconds, 1),
        "device": facts.outcome.device,
        "precision": facts.outcome.precision,
        "run": facts.run.name,
    }
    if facts.classifier is not None:
        strategy["classifier"] = facts.classifier.facts
    provenance = {"weights": facts.source, "layers": facts.layers, "seed": config.seed}
    if facts.adaptation is not None:
        strategy["name"] = facts.adaptation.method
        provenance["adaptation"] = facts.adaptation.facts
    counts = {split: len(table.of(split)) for split in ("train", "val", "test")}
    return Manifest(
        name=config.name,
        task=table.task,
        created=now(),
        surgery_version=surgery.__version__,
        input=facts.input,
        output=facts.targets.output,
        backbone={
            "name": config.backbone,
            "stages": [dataclasses.asdict(stage) for stage in model.backbone.info],
        },
        head={
            "name": config.head,
            "stages": [model.backbone.info[k].name for k in model.head_stages],
            "dropout": config.dropout,
            "test_flips": config.test_flips,
        },
        strategy=strategy,
        provenance=provenance,
        data={
            "path": config.data,
            "format": config.format,
            "fingerprint": table.fingerprint(),
            "layout": table.layout,
            "split_rule": table.split_rule,
            "val_share": config.val_share,
            "split_seed": config.seed,
            "skip_bad": config.skip_bad,
            "images": counts,
            "classes": list(table.classes),
            "ignored": list(config.ignore),
        },
        parent=facts.source.get("parent"),
    )


def now() -> str:
    """Return this moment as a manifest writes it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write a file of a version that programs read."""
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", "utf-8")
