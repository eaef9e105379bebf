"""The folder of a study: each part is written when it is done, so that a stopped study goes on."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save

from surgery.artifact.disk import no_room
from surgery.artifact.errors import DiskFullError
from surgery.study.modules import State
from surgery.train.interrupt import raise_if_requested
from surgery.train.reporting import Task
from surgery.train.run import runs_root

SCHEMA = 2
"""Changes when a part would come out otherwise from the same inputs."""


@dataclass(frozen=True)
class Parts:
    """The finished parts of a study, on disk."""

    folder: Path

    def take(
        self, name: str, inputs: dict[str, Any], compute: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        """Return a part: as an earlier run left it for the same inputs, or computed now and kept.

        Args:
            name: What the part is called.
            inputs: Everything that it depends on, as plain values.
            compute: Returns it as plain values.

        Raises:
            DiskFullError: If there is no room for it.
            KeyboardInterrupt: If the user stops the study; what is done is kept.
        """
        raise_if_requested()
        known = json.dumps({"schema": SCHEMA, "part": name, **inputs}, sort_keys=True)
        path = self.folder / "parts" / f"{hashlib.sha256(known.encode()).hexdigest()[:24]}.json"
        try:
            values: dict[str, Any] = json.loads(path.read_text("utf-8"))
            return values
        except (OSError, ValueError):
            values = plain(compute())
        write_file(path, json.dumps(values) + "\n")  # in their order, which is that of the depth
        return values


def watched(task: Task) -> Callable[[int, int], None]:
    """Return what shows progress, and stops where the user asked for it."""

    def show(done: int, total: int) -> None:
        task.update(done, total)
        raise_if_requested()

    return show


def studies_root() -> Path:
    """Return the folder of all studies: $SURGERY_RUNS/studies, else ./runs/studies."""
    return runs_root() / "studies"


def study_folder(name: str) -> Path:
    """Return the folder of a study: $SURGERY_RUNS/studies/NAME; a colon or a slash becomes a dash."""
    plain = "".join(letter if letter.isalnum() or letter in "@._-" else "-" for letter in name)
    return studies_root() / plain[:200]


def digest_state(state: State) -> str:
    """Return a sha256 over weights: others get other results."""
    tensors = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    return hashlib.sha256(save(tensors)).hexdigest()


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file aside and rename it, its folder made first.

    Raises:
        DiskFullError: If there is no room; nothing half-written stays.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_bytes(content.encode() if isinstance(content, str) else content)
        aside.replace(path)
    except OSError as error:
        if not no_room(error):
            raise
        raise DiskFullError(
            f"{path}: the disk is full; the parts of the study before it are whole",
            "Free some room and repeat the command: it goes on from there.",
        ) from error
    finally:
        aside.unlink(missing_ok=True)


def plain(values: Any) -> Any:
    """Return values as JSON holds them: numbers that are not finite become null."""
    if isinstance(values, dict):
        return {str(key): plain(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [plain(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values
