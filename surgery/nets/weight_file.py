"""Weight files: read any kind without running anything in it, write the cache's kind whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from surgery.artifact.errors import DiskFullError, WeightsError

CHUNK_BYTES = 1 << 20
NESTED = ("state_dict", "model_state_dict", "model", "net")


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(state: Mapping[str, Tensor]) -> str:
    """Return a sha256 over names, types, shapes and values; it does not depend on a file format."""
    total = hashlib.sha256()
    for key in sorted(state):
        value = state[key].detach().cpu().contiguous()
        total.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        # Through bytes, since numpy knows no bfloat16.
        total.update(
            np.ascontiguousarray(value.reshape(-1).view(torch.uint8).numpy()).data
        )
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
        raise WeightsError(
            f"{path} is not a safetensors file, or damaged: {error}"
        ) from error
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
        {str(k): v for k, v in found.items() if isinstance(v, Tensor)}
        if isinstance(found, Mapping)
        else {}
    )
    if not tensors:
        raise WeightsError(
            f"{path} holds a {type(found).__name__} without tensors, not a state dict",
            "save the weights with torch.save(model.state_dict(), FILE)",
        )
    return tensors


def write_cached(
    path: Path, state: Mapping[str, Tensor], source: dict[str, Any]
) -> None:
    """Write a cache file with its source and its digest; it appears whole or not at all.

    Raises:
        DiskFullError: No room.
        WeightsError: The folder cannot be written.
    """
    # A tensor that shares memory with another cannot be saved; clones cannot share.
    tensors = {
        key: value.detach().cpu().clone().contiguous() for key, value in state.items()
    }
    metadata = {"source": json.dumps(source, sort_keys=True), "digest": digest(tensors)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(path)
        handle, name = tempfile.mkstemp(
            prefix=f".{path.name}.{os.getpid()}.", dir=path.parent
        )
        os.close(handle)
        aside = Path(name)
        try:
            save_file(tensors, aside, metadata)
            with aside.open("rb") as file:
                os.fsync(file.fileno())
            aside.chmod(0o644)
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(
            error
        ):
            raise DiskFullError(
                f"no room for {path}",
                "free some space, or set $SURGERY_WEIGHTS to another folder",
            ) from error
        raise WeightsError(
            f"cannot write {path}: {error}",
            "set $SURGERY_WEIGHTS to a folder that can be written",
        ) from error


def read_cached(
    path: Path, pinned: str = ""
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a cache file and prove that it is what was written.

    Args:
        path: Written by `write_cached`.
        pinned: The digest that its tensors must have; empty: the one that was written with them.

    Returns:
        The tensors, and their source.

    Raises:
        WeightsError: Damaged, foreign, or not the pinned weights.
    """
    state = read_state(path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    found = digest(state)
    if found != (pinned or metadata.get("digest")):
        raise WeightsError(
            f"{path} is damaged: its tensors are not those that were written"
        )
    try:
        source = json.loads(metadata["source"])
    except (KeyError, ValueError) as error:
        raise WeightsError(f"{path} does not say where it came from") from error
    return state, source


def _remove_stale(path: Path) -> None:
    """Remove what a killed process left of the same file."""
    for left in path.parent.glob(f".{path.name}.*"):
        pid = left.name.removeprefix(f".{path.name}.").split(".")[0]
        if pid.isdigit() and not _alive(int(pid)):
            left.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
