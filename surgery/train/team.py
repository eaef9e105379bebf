"""Several processes that train one model: who writes, and what they agree on."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

T = TypeVar("T")


@dataclass(frozen=True)
class Team:
    """The processes of a run; alone, all of it costs nothing.

    Args:
        accelerator: Accelerate's handle.
    """

    accelerator: Accelerator

    @property
    def size(self) -> int:
        """Number of processes, over all machines."""
        return int(self.accelerator.num_processes)

    @property
    def rank(self) -> int:
        """Number of this process, from 0."""
        return int(self.accelerator.process_index)

    @property
    def leads(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until all are here."""
        if self.size > 1:
            self.accelerator.wait_for_everyone()

    def share(self, value: T) -> T:
        """Return the first process's value in all of them."""
        if self.size == 1:
            return value
        box: list[Any] = [value]
        broadcast_object_list(box)
        found: T = box[0]
        return found

    def mean(self, value: float, flag: bool) -> tuple[float, bool]:
        """Return the mean of a number over the processes, and whether any of them raised the flag."""
        if self.size == 1:
            return value, flag
        both = torch.tensor([value, float(flag)], dtype=torch.float64, device=self.accelerator.device)
        total = self.accelerator.reduce(both, "sum")
        return float(total[0]) / self.size, bool(total[1] > 0)

    def least(self, value: int) -> int:
        """Return the smallest of the processes' numbers."""
        if self.size == 1:
            return value
        mine = torch.tensor([value], device=self.accelerator.device)
        return int(self.accelerator.gather(mine).min())


def launched_size() -> int:
    """Return the number of processes that a launcher started; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def launched_rank() -> int:
    """Return the rank that a launcher gave this process, before anything is set up; 0 without one."""
    return int(os.environ.get("RANK", "0"))
