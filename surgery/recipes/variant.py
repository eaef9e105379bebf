"""An adapted model on its way into the store: what its manifest, its recipe and its report tell."""

from __future__ import annotations

from typing import Any

import numpy as np

from surgery.artifact.store import Store, StoredVersion
from surgery.config import AdaptConfig, FinetuneConfig
from surgery.deliver.package import Adapted, Facts, Unsealed, find_stored, package, write_json
from surgery.nets.assemble import describe_layers
from surgery.nets.restore import WEIGHTS_FILE
from surgery.recipes.adapting import Look, Tried
from surgery.recipes.domains import Domains
from surgery.report import ADAPTATION_FILE
from surgery.report.page import write_report
from surgery.train.reporting import Reporter
from surgery.train.run import Run
from surgery.train.strategies import Phase


def package_variant(
    config: AdaptConfig,
    domains: Domains,
    parent: StoredVersion,
    chosen: Tried,
    tried: list[Tried],
    looks: tuple[Look, Look],
    run: Run,
    report: Reporter,
) -> StoredVersion:
    """Export the adapted model, prove it and put it into the store, unless a killed run has done so.

    Args:
        config: The resolved config.
        domains: With the adapted model.
        parent: What it was adapted from.
        chosen: The method and epoch that were chosen.
        tried: All methods.
        looks: What the model made of both domains before and after.
        run: The run's folder.
        report: Where progress is shown.
    """
    store = Store()
    done = find_stored(store, config.name, run.folder) if run.resumed else None
    if done is not None:
        return done
    facts = tell(config, domains, chosen, tried, looks)
    images = [item.image for item in domains.target.of("train")]
    adapted = Adapted(config, chosen.plan.name, facts, images)
    layers = describe_layers(domains.model, chosen.plan.first, kept=True, head_kept=True)
    told = Facts(
        as_trained(config, domains),
        domains.source,
        domains.targets,
        domains.parent.input,
        layers,
        what_learnt(chosen, parent),
        describe_parent(parent),
        chosen.outcome,
        run.folder,
        adaptation=adapted,
    )
    pages = {"facts": facts, **gather_pages(domains, tried, looks)}

    def write(version: Unsealed) -> None:
        write_json(version.folder / ADAPTATION_FILE, pages)
        write_report(version, report)

    return package(store, domains.model, told, report, write)


def tell(
    config: AdaptConfig, domains: Domains, chosen: Tried, tried: list[Tried], looks: tuple[Look, Look]
) -> dict[str, Any]:
    """Return what the manifest tells of an adaptation."""
    before, after = looks
    facts: dict[str, Any] = {
        "method": chosen.plan.name,
        "parent": config.model,
        "source": {"path": config.source, "fingerprint": domains.source.fingerprint()},
        "target": {
            "path": list(config.target),
            "images": len(domains.target.of("train")),
            "fingerprint": domains.target.fingerprint(),
        },
        "stage": domains.model.backbone.info[chosen.plan.tap].name,
        "strength": chosen.plan.strength,
        "seed": config.seed,
        "chosen_by": config.choose_by,
        "epoch": chosen.outcome.best_epoch,
        "gain": chosen.gain(config.choose_by),
        "distance": {"before": before.distance, "after": after.distance},
        "methods": {each.plan.name: _tell_method(each) for each in tried},
    }
    if domains.labelled is not None and before.labelled and after.labelled:
        facts["labels"] = {
            "path": config.labels,
            "n": len(domains.labelled[0].items),
            "before": before.labelled.scores.scores if before.labelled.scores else {},
            "after": after.labelled.scores.scores if after.labelled.scores else {},
            "used_to_choose": False,
        }
    return facts


def _tell_method(tried: Tried) -> dict[str, Any]:
    facts = {"epoch": tried.outcome.best_epoch, "criteria": tried.best["criteria"]}
    if "target" in tried.best:
        facts["target"] = tried.best["target"]
    return facts


def gather_pages(domains: Domains, tried: list[Tried], looks: tuple[Look, Look]) -> dict[str, Any]:
    """Return what the report draws, as plain values."""
    before, after = looks
    classes = list(domains.targets.output.classes)
    answers = [each.target.shares.argmax(1) for each in looks]
    moves = np.zeros((len(classes), len(classes)), int)
    np.add.at(moves, tuple(answers), 1)
    pages: dict[str, Any] = {
        "classes": classes,
        "history": {each.plan.name: each.outcome.history for each in tried},
        "planes": {"before": before.plane, "after": after.plane},
        "frequencies": {
            "before": before.target.frequencies.tolist(),
            "after": after.target.frequencies.tolist(),
        },
        "moves": moves.tolist(),
        "per_class": {"source": _per_class(before.source, after.source)},
    }
    if before.labelled and after.labelled:
        pages["per_class"]["target"] = _per_class(before.labelled, after.labelled)
    return pages


def _per_class(before: Any, after: Any) -> dict[str, Any]:
    return {"before": before.scores.per_class, "after": after.scores.per_class}


def as_trained(config: AdaptConfig, domains: Domains) -> FinetuneConfig:
    """Return what a manifest needs to know of the data and the network, which are the parent's."""
    manifest = domains.parent
    known = manifest.data
    return FinetuneConfig(
        data=config.source,
        name=config.name,
        task=manifest.task,
        format=known.get("format"),
        ignore=tuple(known.get("ignored", ())),
        skip_bad=config.skip_bad or bool(known.get("skip_bad", False)),
        val_share=float(known.get("val_share", 0.2)),
        backbone=str(manifest.backbone["name"]),
        head=str(manifest.head["name"]),
        dropout=float(manifest.head["dropout"]),
        weights=config.model,
        strategy="full",
        test_flips=bool(manifest.head.get("test_flips", False)),
        seed=int(known.get("split_seed", 0)),
    )


def what_learnt(chosen: Tried, parent: StoredVersion) -> tuple[Phase, ...]:
    """Return the phase that ran or, where nothing learnt, those of the parent: a variant of it reads them."""
    if not chosen.plan.method.measures:
        return (chosen.plan.phase,)
    phases = [{**each, "scales": tuple(each["scales"])} for each in parent.manifest.strategy["phases"]]
    return tuple(Phase(**each) for each in phases)


def describe_parent(parent: StoredVersion) -> dict[str, Any]:
    """Return where the weights came from, as `provenance.weights` has it."""
    origin = parent.manifest.provenance.get("weights", {})
    inherited = {key: origin[key] for key in ("licence", "credit") if key in origin}
    own = {"kind": "store", "place": f"store, {parent.ref}", "asked": parent.ref, "parent": parent.ref}
    return {**own, "sha256": parent.manifest.files[WEIGHTS_FILE], **inherited}
