"""`--strategy classical`: features of a frozen backbone, and the classifier that suits them."""

from __future__ import annotations

import functools
import time

import numpy as np
import torch

from surgery.artifact.errors import ConfigError
from surgery.artifact.manifest import InputSpec
from surgery.artifact.store import Store, StoredVersion
from surgery.config import CLASSIFIERS, FinetuneConfig
from surgery.data.splits import group_items
from surgery.data.table import Table
from surgery.data.targets import TargetSpec
from surgery.deliver.classifier import from_sklearn
from surgery.deliver.package import Facts, find_stored, package
from surgery.nets.assemble import Model
from surgery.nets.backbone import set_trainable
from surgery.nets.weights import LoadedWeights
from surgery.recipes.plan import describe_views, show_layers
from surgery.recipes.training import Material, open_feed
from surgery.report.page import write_report
from surgery.train.cache import fill_cache
from surgery.train.classifiers import Candidate, Examples, choose_classifier
from surgery.train.cut import Suffix
from surgery.train.device import make_accelerator
from surgery.train.feed import Feed
from surgery.train.interrupt import raise_if_requested
from surgery.train.options import Outcome
from surgery.train.reporting import Reporter
from surgery.train.run import open_run

BATCH = 32
"""Images whose features are computed at once."""


def run_classical(
    config: FinetuneConfig,
    model: Model,
    table: Table,
    targets: TargetSpec,
    spec: InputSpec,
    weights: LoadedWeights,
    resume: bool,
    report: Reporter,
) -> StoredVersion:
    """Compute features, choose a classifier by cross-validation, join both, prove and store them.

    Args:
        config: Resolved.
        model: Its logits are features.
        table: The data.
        targets: Which classes are learnt.
        spec: How an image becomes the network's input.
        weights: What the backbone was filled with.
        resume: Go on with the newest unfinished run of the name; features that it has cached are found again.
        report: Where progress is shown.

    Raises:
        ConfigError: If images have several labels.
        DataError: If a class has too few images to cross-validate.
        ParityError: If the graph answers otherwise than network and classifier; nothing is stored.
    """
    if table.multilabel:
        raise ConfigError(
            "--strategy classical takes one label an image; this data has several",
            "Take --strategy frozen, which learns several labels from the same features.",
        )
    started = time.monotonic()
    stages = len(model.backbone.info)
    layers = show_layers(config, targets, model, stages, report)
    kinds = config.classifiers or CLASSIFIERS
    report.line(f"classifiers: {', '.join(kinds)}; {describe_views(config, frozen=True)}")
    run = open_run(config, table, weights.source.get("sha256"), resume)
    report.line(f"run {run.folder}")
    accelerator = make_accelerator(config.device, config.precision)
    set_trainable(model.backbone, stages)
    model.to(accelerator.device).to(memory_format=torch.channels_last).eval()
    feed = open_feed(config, Material(model, table, targets, spec, None), accelerator, stages)
    try:
        fill_cache(feed, report)
        examples = gather_features(feed, Suffix(model, stages), table)
    finally:
        feed.close()
    with report.task("comparing classifiers") as task:

        def show(done: int, total: int) -> None:
            task.update(done, total)
            raise_if_requested()

        fitted, found = choose_classifier(
            examples, config.classifiers, config.folds, config.seed, config.class_weights == "balanced",
            targets.output.classes, show,
        )  # fmt: skip
    for line in describe_candidates(found):
        report.line(line)
    classifier = from_sklearn(fitted, examples.features.shape[1], tell(found, examples, config.folds))
    fast = accelerator.mixed_precision
    seconds = time.monotonic() - started
    outcome = Outcome({}, 0, [], seconds, accelerator.device.type, "fp32" if fast == "no" else fast)
    facts = Facts(config, table, targets, spec, layers, (), weights.source, outcome, run.folder, classifier)
    store = Store()
    stored = find_stored(store, config.name, run.folder) if run.resumed else None
    stored = stored or package(store, model, facts, report, functools.partial(write_report, report=report))
    run.finish(stored=stored.ref, seconds=time.monotonic() - started)
    return stored


def gather_features(feed: Feed, head: torch.nn.Module, table: Table) -> Examples:
    """Return the features of the training images in all views.

    Args:
        feed: Its frozen part is the whole backbone.
        head: Maps a batch's activations to features (n, d).
        table: The data.
    """
    train = table.of("train")
    groups = {item.image: k for k, group in enumerate(group_items(train)) for item in group}
    features, labels, members, plain = [], [], [], []
    with torch.inference_mode():
        for view in range(feed.views):
            for batch in feed.view(view, BATCH):
                features.append(head(batch.inputs, batch.size).float().cpu().numpy())
                labels.append(batch.targets.cpu().numpy())
                members += [groups[item.image] for item in batch.items]
                plain += [view == 0] * len(batch.items)
                raise_if_requested()
    return Examples(np.concatenate(features), np.concatenate(labels), np.array(members), np.array(plain))


def describe_candidates(found: list[Candidate]) -> list[str]:
    """Return a line for the best of each kind of classifier, the chosen one first."""
    best: dict[str, Candidate] = {}
    for each in found:
        best.setdefault(each.kind, each)
    lines = []
    for each in best.values():
        values = ", ".join(f"{key} {value:g}" for key, value in each.settings.items() if key != "of")
        scores = f"accuracy {each.accuracy:.4f}  log loss {each.log_loss:.4f}"
        lines.append(f"  {each.kind:<12}{scores}  {values}".rstrip())
    return ["by cross-validation on train:", *lines, f"chosen: {found[0].kind}"]


def tell(found: list[Candidate], examples: Examples, folds: int) -> dict[str, object]:
    """Return what the manifest tells of the choice."""
    return {
        "chosen": found[0].kind,
        "settings": found[0].settings,
        "features": examples.features.shape[1],
        "folds": folds,
        "rows": len(examples.labels),
        "images": int(examples.plain.sum()),
        "candidates": [each.to_dict() for each in found],
    }
