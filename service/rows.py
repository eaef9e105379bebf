"""The rows of GET /models: what is told of a version, and of one that is loaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from surgery.artifact.errors import SurgeryError
from surgery.artifact.manifest import Manifest
from surgery.artifact.passports import find_passport
from surgery.artifact.store import Store, StoredVersion

from .served import Served
from .shelf import Shelf

if TYPE_CHECKING:
    from .runtime import Table


def list_rows(store: Store, table: Table, shelf: Shelf, tidy: Callable[[str], str]) -> list[dict[str, Any]]:
    """Return one row for each version of a store, and for each alias without one. Blocks.

    Args:
        store: The store.
        table: What requests are answered from.
        shelf: What is in memory.
        tidy: Returns a message without what is nobody's business outside.
    """

    def row(name: str, version: int) -> dict[str, Any]:
        aliases = sorted(a for a, number in table.aliases[name].items() if number == version)
        facts: dict[str, Any] = {"name": name, "version": version, "aliases": aliases}
        try:
            stored = store.resolve(f"{name}@{version}")
        except SurgeryError as error:
            return {**facts, "state": "failed", "reason": tidy(error.message)}
        facts |= describe_stored(stored)
        rollout = table.rollouts.get(name)
        if rollout is not None and rollout.plan.version == version:
            facts["rollout"] = rollout.summary()
        served = shelf.loaded(stored)
        if served is not None:
            state = "serving" if table.production.get(name) is served else "loaded"
            return {**facts, **describe_served(served), "state": state}
        reason = shelf.reason((name, version))
        if reason is not None:
            return {**facts, "state": "failed", "reason": tidy(reason)}
        return {**facts, "state": "stored"}

    return [
        row(name, version)
        for name, aliases in sorted(table.aliases.items())
        for version in sorted({*store.list_versions(name), *aliases.values()})
    ]


def describe_stored(stored: StoredVersion) -> dict[str, Any]:
    """Return what is known of a version without loading it."""
    manifest: Manifest = stored.manifest
    given = manifest.input
    size = {} if given.size_rule == "native" else {"width": given.width, "height": given.height}
    facts = {
        "task": manifest.task,
        "classes": list(manifest.output.classes),
        "input": {"size_rule": given.size_rule, **size, "colour": given.colour},
        "precision": manifest.precision_on("cpu"),
        "sha256": stored.sha256(),
        "created": manifest.created,
    }
    passport = {} if find_passport(stored) is None else {"passport": f"passport?model={stored.ref}"}
    return facts | passport


def describe_served(served: Served) -> dict[str, Any]:
    """Return what is known of a version that is loaded."""
    return {
        "sha256": served.sha256,
        "precision": served.precision,
        "device": served.session.device,
        "batch": served.pace.size,
        "lanes": served.pace.lanes,
        "explains": served.explains,
    }
