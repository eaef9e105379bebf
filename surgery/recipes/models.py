"""surgery models: what the store holds, and which version of a model is production."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from surgery.artifact.errors import StoreError
from surgery.artifact.passports import find_passport
from surgery.report import REPORT_FILE

if TYPE_CHECKING:
    from surgery.artifact.manifest import Manifest
    from surgery.artifact.store import Store, StoredVersion

WIDTH = 110
MAIN_SCORES = ("accuracy", "iou")
"""The score that a list shows."""
_MIB = 2**20


def list_models(as_json: bool = False) -> None:
    """Print every version of every model in the store.

    Args:
        as_json: Print one JSON object instead of a table.

    Raises:
        StoreError: If the aliases of a model cannot be read.
    """
    from surgery.artifact.store import Store

    store = Store()
    rows = [row for name in store.list_names() for row in _rows(store, name)]
    damaged = store.list_damaged() | _damaged_rollouts(store)
    if as_json:
        print(json.dumps({"store": str(store.root), "versions": rows, "damaged": damaged}))
        return
    if rows:
        _print_rows(rows)
    for ref, reason in damaged.items():
        _say(f"damaged: {ref}: {reason.splitlines()[0]}")
    if rows:
        _say("next: surgery models show NAME, or bentoml serve")
    else:
        _say(f"the store {store.root} holds no model")
        _say("next: surgery finetune DATA --name NAME, or make demo")


def show(ref: str, as_json: bool = False) -> None:
    """Print what a version is and where it came from, after checking each of its files.

    Args:
        ref: NAME, NAME@VERSION or NAME@ALIAS.
        as_json: Print the manifest and a little more as one JSON object.

    Raises:
        ModelNotFoundError: No such model, version or alias.
        StoreError: A file of the version is missing or altered.
    """
    from surgery.artifact.store import Store

    store = Store()
    stored = store.resolve(ref)
    store.verify(stored.name, stored.version)
    aliases = _aliases_of(store, stored)
    if as_json:
        page = find_passport(stored)
        values: dict[str, Any] = {"model": stored.name, "path": str(stored.path), "aliases": aliases}
        values["passport"] = str(page) if page else None
        print(json.dumps(values | stored.manifest.to_dict()))
        return
    title = f"{stored.ref} ({', '.join(aliases)})" if aliases else stored.ref
    table = Table(title, "", box=None, title_justify="left")
    table.columns[1].overflow = "fold"  # a path that is cut cannot be copied
    for key, value in _facts(stored).items():
        table.add_row(key, value)
    _out().print(table, highlight=False)
    _say(f"next: surgery evaluate {stored.ref} DATA, or surgery predict {stored.ref} IMAGE")


def promote(name: str, version: int, as_json: bool = False, anyway: bool = False) -> None:
    """Make a version production: NAME alone and the service mean it from now on.

    Args:
        name: The model.
        version: Number of the version; every file of it is checked first.
        as_json: Print one JSON object.
        anyway: Also a version whose precision lost more than the tolerance it was exported with.

    Raises:
        ConfigError: It lost more, and `anyway` was not said.
        ModelNotFoundError: No such version.
        StoreError: A file of it is damaged.
    """
    from surgery.artifact.store import Store

    store = Store()
    if not anyway:
        _refuse_loss(store.resolve(f"{name}@{version}"))
    stored = store.promote(name, version)
    _print_change(store, stored, f"{stored.ref} is production", as_json)
    if "previous" in store.aliases(name):
        _say(f"next: surgery models rollback {name}, to go back")


def _refuse_loss(stored: StoredVersion) -> None:
    """Refuse a version whose precision costs more than was to be lost.

    Raises:
        ConfigError: If so.
    """
    from surgery.artifact.errors import ConfigError

    precision = stored.manifest.precision
    facts = stored.manifest.parity.get("precisions", {}).get(precision, {})
    if facts.get("passed", True):
        return
    raise ConfigError(
        f"{stored.ref}: in {precision} its {facts['metric']} on val is {facts['score']:.4f}, in fp32 "
        f"{facts['fp32']:.4f}; {facts['loss_points']:.2f} points are lost, the tolerance is "
        f"{facts['tolerance_points']:g}",
        f"export {stored.manifest.parent} again with another --precision or a larger --tolerance, or "
        f"promote it all the same: `surgery models promote {stored.name} {stored.version} --anyway`.",
    )


def rollback(name: str, as_json: bool = False) -> None:
    """Swap production and previous.

    Args:
        name: The model.
        as_json: Print one JSON object.

    Raises:
        ModelNotFoundError: No such model, or the previous version is gone.
        StoreError: No version was production before, or it is damaged.
    """
    from surgery.artifact.store import Store

    store = Store()
    stored = store.rollback(name)
    _print_change(store, stored, f"{stored.ref} is production again", as_json)
    _say(f"next: surgery models rollback {name}, to swap once more")


def remove(name: str, version: int, as_json: bool = False) -> None:
    """Delete a version; production is refused. Its number is not given again.

    Args:
        name: The model.
        version: Number of the version.
        as_json: Print one JSON object.

    Raises:
        ModelNotFoundError: No such version.
        StoreError: An alias points at it.
    """
    from surgery.artifact.store import Store

    store = Store()
    store.remove(name, version)
    if as_json:
        print(json.dumps({"model": name, "removed": version, "aliases": store.aliases(name)}))
    else:
        print(f"{name}@{version} is removed")
    _say("next: surgery models list")


def _print_change(store: Store, stored: StoredVersion, line: str, as_json: bool) -> None:
    aliases = store.aliases(stored.name)
    values = {"model": stored.name, "version": stored.version, "aliases": aliases}
    print(json.dumps(values) if as_json else line)


def _rows(store: Store, name: str) -> list[dict[str, Any]]:
    """Return what is told of each version of a name, as plain values."""
    rows = []
    for version in store.list_versions(name):
        stored = store.resolve(f"{name}@{version}")
        manifest = stored.manifest
        rows.append(
            {
                "model": name,
                "version": version,
                "aliases": _aliases_of(store, stored),
                "rollout": _rollout_of(store, stored),
                "task": manifest.task,
                "backbone": manifest.backbone.get("name"),
                "head": manifest.head.get("name"),
                "strategy": manifest.strategy.get("name"),
                "precision": manifest.precision,
                "scores": _scores(manifest),
                "bytes": _size(stored),
                "created": manifest.created,
            }
        )
    return rows


def _rollout_of(store: Store, stored: StoredVersion) -> dict[str, Any] | None:
    """Return kind and share of the rollout of a version; None if it has none that can be read."""
    with suppress(StoreError):
        plan = store.rollout(stored.name)
        if plan is not None and plan.version == stored.version:
            return {"kind": plan.kind, "share": plan.share}
    return None


def _damaged_rollouts(store: Store) -> dict[str, str]:
    """Return `name` → what is wrong with its rollout.json."""
    damaged = {}
    for name in store.list_names():
        try:
            store.rollout(name)
        except StoreError as error:
            damaged[name] = error.message
    return damaged


def _print_rows(rows: list[dict[str, Any]]) -> None:
    columns = (
        "model",
        "alias",
        "task",
        "backbone",
        "head",
        "strategy",
        "precision",
        "score",
        "MiB",
        "created",
    )
    table = Table(*columns, box=None)
    for row in rows:
        scores, running = row["scores"], row["rollout"]
        main = next((key for key in (*MAIN_SCORES, *scores) if key in scores), None)
        score = f"{main} {scores[main]:.3f}" if main else ""
        table.add_row(
            f"{row['model']}@{row['version']}",
            ", ".join([*row["aliases"], *([f"{running['kind']} {running['share']:g}"] if running else [])]),
            *(str(row[key] or "") for key in ("task", "backbone", "head", "strategy", "precision")),
            score,
            f"{row['bytes'] / _MIB:.1f}",
            row["created"][:10],
        )
    _out().print(table, highlight=False)


def _facts(stored: StoredVersion) -> dict[str, str]:
    """Return the lines of `show`."""
    manifest = stored.manifest
    spec, weights = manifest.input, manifest.provenance.get("weights", {})
    size = "the image's own size" if spec.size_rule == "native" else f"{spec.width}×{spec.height}"
    layers = manifest.provenance.get("layers", {}).get("parts", [])
    return {
        "task": f"{manifest.task}: {', '.join(manifest.output.classes)}",
        "backbone": str(manifest.backbone.get("name", "")),
        "weights": "\n".join(str(weights[key]) for key in ("place", "licence", "credit") if weights.get(key)),
        "head": str(manifest.head.get("name", "")),
        "strategy": str(manifest.strategy.get("name", "")),
        "layers": "\n".join(f"{layer.get('name')}: {layer.get('fate')}" for layer in layers),
        "input": f"{spec.size_rule}, {size}, {spec.colour}",
        "precision": manifest.precision,
        "served": "\n".join(_describe_served(manifest)),
        "scores": "\n".join(f"{key} {value:.4f}" for key, value in _scores(manifest).items()),
        "calibration": _describe_calibration(manifest),
        "parent": manifest.parent or "",
        "adapted": _describe_adaptation(manifest),
        "created": f"{manifest.created} by surgery {manifest.surgery_version}",
        "files": f"{len(manifest.files)}, {_size(stored) / _MIB:.1f} MiB, each as the manifest says",
        "folder": str(stored.path),
        "report": str(stored.path / REPORT_FILE) if REPORT_FILE in manifest.files else "none",
        "passport": str(find_passport(stored) or f"none; surgery passport {stored.ref} writes it"),
    }


def _describe_adaptation(manifest: Manifest) -> str:
    facts = manifest.provenance.get("adaptation")
    if not facts:
        return "no"
    target = facts["target"]
    lines = [
        f"by {facts['method']} from {facts['source']['path']}",
        f"to {target['images']} images without labels, {', '.join(target['path'])}",
    ]
    scored = facts.get("labels", {}).get("after", {})
    main = next((key for key in (*MAIN_SCORES, *scored) if key in scored), None)
    if main:
        before = facts["labels"]["before"][main]
        lines.append(f"{main} {scored[main]:.4f} there, {before:.4f} before (nothing was chosen by it)")
    return "\n".join(lines)


def _describe_calibration(manifest: Manifest) -> str:
    facts = manifest.scores.get("calibration")
    if not facts:
        return ""
    error = f"error {facts['ece_before']:.4f} without, {facts['ece_after']:.4f} with it"
    return f"temperature {manifest.output.temperature:g}; {error}"


def _describe_served(manifest: Manifest) -> list[str]:
    """Return a line for each kind of device: what runs on it, and what was measured."""
    lines = []
    for device in manifest.serve:
        times = manifest.speed.get(device, {}).get("milliseconds", {})
        measured = ", ".join(f"{name} {took:.3g} ms" for name, took in times.items())
        lines.append(f"{device}: {manifest.precision_on(device)}" + (f" ({measured})" if measured else ""))
    return lines


def _scores(manifest: Manifest) -> dict[str, float]:
    """Return the named scores that are numbers."""
    scores = manifest.scores.get("scores", {})
    return {key: value for key, value in scores.items() if isinstance(value, int | float)}


def _aliases_of(store: Store, stored: StoredVersion) -> list[str]:
    held = store.aliases(stored.name).items()
    return sorted(alias for alias, version in held if version == stored.version)


def _size(stored: StoredVersion) -> int:
    return sum((stored.path / file).stat().st_size for file in stored.manifest.files)


def _out() -> Console:
    """Return the console for results: the terminal's width, or a fixed one in a pipe."""
    return Console(width=None if Console().is_terminal else WIDTH)


def _say(line: str) -> None:
    Console(stderr=True, soft_wrap=True).print(line, highlight=False, markup=False)
