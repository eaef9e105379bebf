"""Checkpoints of a run: one safetensors file each, appearing whole or not at all, nothing pickled."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from surgery.artifact.disk import no_room
from surgery.artifact.errors import DiskFullError


@dataclass
class Progress:
    """What resuming needs to know besides tensors.

    Attributes:
        phase: Index of the phase.
        epoch: Epochs finished in the run (over all phases).
        phase_epoch: Epochs finished in the phase.
        step: Steps done in the unfinished epoch.
        sums: Sums over these steps of what the rule notes, by name; `loss` is one of them.
        best: Best score so far, and None before the first evaluation.
        best_loss: Validation loss where it was reached, which settles ties.
        best_epoch: Epoch of the run after which it was reached; 0 is before training.
        since_best: Epochs of the phase without a better score.
        history: One row an epoch.
        seconds: Seconds trained so far.
        updates: Steps of the optimizer in the phase.
    """

    phase: int = 0
    epoch: int = 0
    phase_epoch: int = 0
    step: int = 0
    best: float | None = None
    best_loss: float = float("inf")
    best_epoch: int = 0
    since_best: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    updates: int = 0
    sums: dict[str, float] = field(default_factory=dict)

    def add(self, values: dict[str, float]) -> None:
        """Count a step, and what is noted of it."""
        self.step += 1
        for key, value in values.items():
            self.sums[key] = self.sums.get(key, 0.0) + value

    def means(self) -> dict[str, float]:
        """Return the means over the steps of the unfinished epoch; those of an epoch without steps are 0."""
        return {key: total / max(1, self.step) for key, total in self.sums.items()}


def save_checkpoint(
    folder: Path,
    progress: Progress,
    weights: dict[str, Tensor],
    optimizer: torch.optim.Optimizer | None,
    keep: str,
    average: dict[str, Tensor] | None = None,
) -> Path:
    """Write a checkpoint and drop the oldest ones.

    Args:
        folder: The run's `checkpoints` folder.
        progress: Where the run is.
        weights: The tensors that training changes, by their key in the model.
        optimizer: Its moments are kept too; None between phases.
        keep: How many checkpoints stay, or `all`.
        average: The moving average of the weights, if there is one.

    Raises:
        DiskFullError: If there is no room; older checkpoints stay.
    """
    tensors = {f"model/{key}": tensor for key, tensor in weights.items()}
    if optimizer is not None:
        for index, values in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{key}": tensor for key, tensor in values.items()}
    tensors |= {f"average/{key}": tensor for key, tensor in (average or {}).items()}
    tensors["rng/cpu"] = torch.get_rng_state()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        tensors["rng/cuda"] = torch.cuda.get_rng_state()
    path = folder / f"epoch-{progress.epoch:04d}-step-{progress.step:06d}.safetensors"
    write_tensors(path, tensors, {"progress": json.dumps(dataclasses.asdict(progress))})
    _drop_old(folder, path, keep)
    for stale in set(folder.glob("best-*.safetensors")) - {best_checkpoint(folder, progress.best_epoch)}:
        stale.unlink(missing_ok=True)
    return path


def load_checkpoint(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    average: dict[str, Tensor] | None = None,
) -> Progress:
    """Put a checkpoint's tensors back and return where the run was.

    Args:
        path: A file written by `save_checkpoint`.
        model: Gets the weights; tensors the checkpoint lacks are left alone.
        optimizer: Gets the moments, and torch its random state, if given.
        average: The tensors of the moving average, which are overwritten.
    """
    weights: dict[str, Tensor] = {}
    moments: dict[int, dict[str, Tensor]] = {}
    with safe_open(path, framework="pt") as file:
        progress = _read_progress(json.loads(file.metadata()["progress"]))
        for key in file.keys():  # noqa: SIM118
            kind, _, rest = key.partition("/")
            if kind == "model":
                weights[rest] = file.get_tensor(key)
            elif kind == "optimizer":
                index, _, name = rest.partition("/")
                moments.setdefault(int(index), {})[name] = file.get_tensor(key)
            elif kind == "average" and average is not None:
                average[rest].copy_(file.get_tensor(key))
        restore_weights(model, weights)
        if optimizer is not None:
            state = optimizer.state_dict()
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            for index, values in moments.items():  # in the parameters' own memory layout
                like = parameters[index]
                for name, value in values.items():
                    if value.shape == like.shape:
                        values[name] = torch.empty_like(like).copy_(value)
            state["state"] = moments
            optimizer.load_state_dict(state)
            torch.set_rng_state(file.get_tensor("rng/cpu"))
            kept = "rng/cuda" in file.keys()  # noqa: SIM118
            if kept and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
                torch.cuda.set_rng_state(file.get_tensor("rng/cuda"))
    return progress


def _read_progress(values: dict[str, Any]) -> Progress:
    loss_sum = values.pop("loss_sum", None)  # of runs that an older version began
    return Progress(**values) if loss_sum is None else Progress(**values, sums={"loss": loss_sum})


def restore_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Copy tensors into a model by their keys; the model must have all of them."""
    unexpected = model.load_state_dict(weights, strict=False).unexpected_keys
    if unexpected or not weights:
        raise KeyError(f"these are not the model's tensors: {unexpected[:3]}")


def load_judged(path: Path) -> dict[str, Tensor]:
    """Return the weights that the scores of a checkpoint are of, by their key in the model.

    Those are the moving average where the run keeps one, since it is what the loop judges; else the weights
    that learn.

    Args:
        path: A file written by `save_checkpoint`.
    """
    with safe_open(path, framework="pt") as file:
        kind = "average/" if is_averaged(file) else "model/"
        keys = [key for key in file.keys() if key.startswith(kind)]  # noqa: SIM118
        return {key.removeprefix(kind): file.get_tensor(key) for key in keys}


def is_averaged(file: Any) -> bool:
    """Tell whether an open checkpoint holds a moving average."""
    return any(key.startswith("average/") for key in file.keys())  # noqa: SIM118


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Return all tensors of a safetensors file."""
    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def best_checkpoint(folder: Path, epoch: int) -> Path:
    """Return the file of the best weights, which an epoch reached.

    It is named by the epoch, since a run may be killed between writing it and the checkpoint that says so.
    """
    return folder / f"best-{epoch:04d}.safetensors"


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the checkpoint that is furthest in training, or None."""
    return max(folder.glob("epoch-*-step-*.safetensors"), key=_progress_of, default=None)


def _progress_of(path: Path) -> tuple[int, int]:
    _, epoch, _, step = path.stem.split("-")
    return int(epoch), int(step)


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file aside, flush it to the disk and rename it.

    Raises:
        DiskFullError: If there is no room; nothing half-written stays.
    """
    aside = path.with_suffix(".part")
    try:
        flat = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
        with aside.open("wb") as file:  # save_file would make it readable by its owner alone
            file.write(save(flat, metadata))
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        if not no_room(error):
            raise
        raise DiskFullError(
            f"{path}: the disk is full while a checkpoint is written; the ones before it are whole",
            "Free some room and repeat the command with --resume.",
        ) from error
    finally:
        aside.unlink(missing_ok=True)


def _drop_old(folder: Path, newest: Path, keep: str) -> None:
    within_epochs = [p for p in folder.glob("epoch-*.safetensors") if "-step-000000" not in p.name]
    stale = [path for path in within_epochs if path != newest]
    if keep != "all":
        whole = sorted(folder.glob("epoch-*-step-000000.safetensors"), key=_progress_of)
        stale += whole[: -int(keep)]
    for path in stale:
        path.unlink(missing_ok=True)
