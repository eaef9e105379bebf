"""The device a run trains on: which it is, what logs it, and how much fits into it."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from surgery.artifact.errors import ConfigError
from surgery.train.cut import Suffix, set_head_norms
from surgery.train.feed import Batch
from surgery.train.losses import Loss


def check_device(device: str) -> None:
    """Refuse a device that is not there.

    Raises:
        ConfigError: If `cuda` is asked for and torch sees none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: torch sees no CUDA device", "Use --device auto or cpu.")


def make_accelerator(
    device: str, precision: str, log_dir: Path | None = None, trackers: tuple[str, ...] = ("tensorboard",)
) -> Accelerator:
    """Return accelerate's handle on the device.

    Args:
        device: `auto`, `cpu` or `cuda`.
        precision: `auto` (bf16 on a GPU that has it), `fp32` or `bf16`.
        log_dir: The run's folder, where trackers write; None for no trackers.
        trackers: Names of accelerate's trackers (`config.TRACKERS`).

    Raises:
        ConfigError: If `cuda` is asked for and not there, or a tracker is not installed.
    """
    check_device(device)
    check_trackers(trackers)
    has_cuda = torch.cuda.is_available()
    on_cpu = device == "cpu" or not has_cuda
    fast = precision == "bf16" or (
        precision == "auto" and not on_cpu and torch.cuda.is_bf16_supported(including_emulation=False)
    )
    AcceleratorState._reset_state(reset_partial_state=True)  # several runs in one process
    if on_cpu:
        keep_freed_memory()
    accelerator = Accelerator(
        cpu=on_cpu,
        mixed_precision="bf16" if fast else "no",
        log_with=list(trackers) if log_dir else None,
        project_dir=str(log_dir) if log_dir else None,
    )
    if log_dir and trackers:
        accelerator.init_trackers("events", init_kwargs={"wandb": {"name": log_dir.name}})
    return accelerator


def keep_freed_memory() -> None:
    """Have the C library keep what is freed for the next allocation; where it is not glibc, do nothing.

    Every activation of a step is larger than what malloc keeps by itself: it would be mapped, cleared page
    by page and unmapped again, which takes up to half the time of a network of small convolutions.
    """
    trim_threshold, mmap_max = -1, -4  # the names of malloc.h, M_TRIM_THRESHOLD and M_MMAP_MAX
    with contextlib.suppress(AttributeError, OSError):
        tune = ctypes.CDLL(None).mallopt
        tune(mmap_max, 0)
        tune(trim_threshold, 2**31 - 1)


def check_trackers(trackers: tuple[str, ...]) -> None:
    """Refuse trackers that are not installed.

    Raises:
        ConfigError: With how to install them.
    """
    missing = [name for name in trackers if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"--tracker: not installed: {', '.join(missing)}",
            f"pip install {' '.join(missing)}   (tensorboard comes with surgery)",
        )


def largest_fitting(suffix: Suffix, loss: Loss, batch: Batch) -> int:
    """Return how many images fit into the device's memory: a half, a quarter, … of a batch, or 0."""
    count = len(batch.items) // 2
    while count:
        for parameter in suffix.parameters():
            parameter.grad = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        set_head_norms(suffix.model, count)
        try:
            part = {name: value[:count] for name, value in batch.inputs.items()}
            loss(suffix(part, batch.size), batch.targets[:count]).backward()  # type: ignore[no-untyped-call]
        except torch.OutOfMemoryError:
            count //= 2
            continue
        break
    for parameter in suffix.parameters():
        parameter.grad = None
    return count
