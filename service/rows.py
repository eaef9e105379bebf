"""The rows of GET /models: what is told of a version, and of one that is loaded."""

from __future__ import annotations

from typing import Any

from surgery.artifact.manifest import Manifest
from surgery.artifact.passports import find_passport
from surgery.artifact.store import StoredVersion

from .served import Served


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
