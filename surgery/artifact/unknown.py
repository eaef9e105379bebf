"""What is not in the store, and what is there instead."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from surgery.artifact.errors import ModelNotFoundError

if TYPE_CHECKING:
    from surgery.artifact.store import Store


def unknown_name(store: Store, name: str) -> ModelNotFoundError:
    """Return the error for a name that is not there; it names the nearest."""
    names = store.list_names()
    if not names:
        hint = "make one with `surgery finetune DATA --name NAME`, or set $SURGERY_MODELS."
        return ModelNotFoundError(f"no model '{name}': the store {store.root} is empty", hint)
    near = difflib.get_close_matches(name, names, 1)
    nearest = f" (nearest: '{near[0]}')" if near else ""
    return ModelNotFoundError(
        f"no model '{name}' in the store {store.root}{nearest}; it holds {', '.join(names)}",
        "`surgery models list` shows every version.",
    )


def unknown_version(store: Store, name: str, version: int) -> ModelNotFoundError:
    """Return the error for a version that is not there."""
    versions = store.list_versions(name)
    if not versions:
        return unknown_name(store, name)
    held = ", ".join(map(str, versions))
    return ModelNotFoundError(
        f"no version {version} of model '{name}'; there are {held}",
        f"use {name}@{versions[-1]}, or see `surgery models show {name}`.",
    )


def unknown_alias(store: Store, name: str, alias: str) -> ModelNotFoundError:
    """Return the error for an alias that is not there."""
    aliases = store.aliases(name)
    held = ", ".join(f"{key} = {aliases[key]}" for key in sorted(aliases)) or "none"
    versions = ", ".join(map(str, store.list_versions(name))) or "none"
    return ModelNotFoundError(
        f"model '{name}' has no alias '{alias}'; aliases: {held}; versions: {versions}",
        f"name a version, or set one with `surgery models promote {name} VERSION`.",
    )
