"""Weight files: read any kind without running anything in it, write the cache's kind whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from surgery.artifact import disk
from surgery.artifact.errors import DiskFullError, WeightsError

STAGING = ".fetch-"
READABLE = 0o644  # a cache may be shared; safetensors writes for its owner alone
NESTED = ("state_dict", "model_state_dict", "model", "net")


def digest(state: Mapping[str, Tensor]) -> str:
    """Return a sha256 over names, types, shapes and values; it does not depend on a file format."""
    total = hashlib.sha256()
    for key in sorted(state):
        value = state[key].detach().cpu().contiguous()
        total.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        # Through bytes, since numpy knows no bfloat16.
        total.update(np.ascontiguousarray(value.reshape(-1).view(torch.uint8).numpy()).data)
    return total.hexdigest()


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a `.safetensors` file or a plain state dict `.pth` / `.pt`.

    Raises:
        WeightsError: Not such a file, damaged, or a pickle that asks for anything but tensors. Such a pickle
            is refused before any of it runs.
    """
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return _plain(path, torch.load(path, map_location="cpu", weights_only=True))
    except WeightsError:
        raise
    except FileNotFoundError as error:
        raise WeightsError(f"there is no file {path}", "check the path") from error
    except SafetensorError as error:
        raise WeightsError(f"{path} is not a safetensors file, or damaged: {error}") from error
    except Exception as error:  # torch.load raises a dozen types on foreign bytes
        why = next((line for line in str(error).splitlines() if "GLOBAL" in line), "")
        raise WeightsError(
            f"{path} is not a plain state dict: {why or type(error).__name__}; nothing in it was run",
            "save the weights with safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')",
        ) from error


def _plain(path: Path, found: Any) -> dict[str, Tensor]:
    """Take the state dict out of a checkpoint's usual wrappings."""
    for key in NESTED:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
            break
    tensors = (
        {str(k): v for k, v in found.items() if isinstance(v, Tensor)} if isinstance(found, Mapping) else {}
    )
    if not tensors:
        raise WeightsError(
            f"{path} holds a {type(found).__name__} without tensors, not a state dict",
            "save the weights with torch.save(model.state_dict(), FILE)",
        )
    return tensors


def write_cached(path: Path, state: Mapping[str, Tensor], source: dict[str, Any]) -> dict[str, Any]:
    """Write a cache file with its source and its digest; it appears whole or not at all.

    Returns:
        The source with the digest, as `read_cached` will return it.

    Raises:
        DiskFullError: No room.
        WeightsError: The folder cannot be written.
    """
    # A tensor that shares memory with another cannot be saved; clones cannot share.
    tensors = {key: value.detach().cpu().clone().contiguous() for key, value in state.items()}
    source = {**source, "digest": digest(tensors)}
    try:
        with staging(path.parent) as aside:
            whole = aside / path.name
            save_file(tensors, whole, {"source": json.dumps(source, sort_keys=True)})
            whole.chmod(READABLE)
            disk.sha256(whole, sync=True)
            whole.replace(path)
            disk.sync_folder(path.parent)
    except (OSError, SafetensorError) as error:
        raise cannot_write(path, error) from error
    return source


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """Give a folder inside the cache to work in; it is gone afterwards.

    What a killed process left is removed by the next one. A living process holds a lock on its own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    alone = disk.lock(folder)
    try:
        disk.remove_unlocked(folder, STAGING)
        aside = Path(tempfile.mkdtemp(prefix=STAGING, dir=folder))
        held = disk.lock(aside)
    finally:
        os.close(alone)
    try:
        yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        os.close(held)


def cannot_write(path: Path, error: Exception) -> WeightsError | DiskFullError:
    """Return the error for a cache that cannot be written to."""
    if disk.no_room(error):
        return DiskFullError(
            f"no room for {path}", "free some space, or set $SURGERY_WEIGHTS to another folder"
        )
    return WeightsError(
        f"cannot write {path}: {error}", "set $SURGERY_WEIGHTS to a folder that can be written"
    )


def read_cached(path: Path, pinned: str = "") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a cache file and prove that it is what was written.

    Args:
        path: Written by `write_cached`.
        pinned: The digest that its tensors must have; empty: the one that was written with them.

    Returns:
        The tensors, and their source.

    Raises:
        WeightsError: Damaged, foreign, or not the pinned weights.
    """
    state, source = read_state(path), read_source(path)
    if digest(state) != (pinned or source["digest"]):
        raise WeightsError(f"{path} is damaged: its tensors are not those that were written")
    return state, source


def read_source(path: Path) -> dict[str, Any]:
    """Read what a cache file says of its source; of the tensors only the header is read.

    Raises:
        WeightsError: Not a file that `write_cached` wrote.
    """
    try:
        with safe_open(path, framework="pt") as file:
            source: dict[str, Any] = json.loads((file.metadata() or {})["source"])
            return source
    except (KeyError, ValueError, OSError, SafetensorError) as error:
        raise WeightsError(f"{path} is damaged, or does not say where it came from") from error
