"""The exponential moving average of the weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class Average:
    """A second set of the tensors that learn, which follows them slowly.

    Args:
        tensors: The live tensors by their key in the model; the average starts where they are.
        decay: Share of the average that stays at each step; smaller at the first steps.

    References:
        Polyak & Juditsky 1992; the first steps as in TensorFlow's ExponentialMovingAverage.
    """

    def __init__(self, tensors: dict[str, Tensor], decay: float) -> None:
        self.live = tensors
        self.decay = decay
        self.tensors = {key: tensor.detach().clone() for key, tensor in tensors.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Follow the live tensors.

        Args:
            step: Steps done before this one, from 0.
        """
        decay = min(self.decay, (1 + step) / (10 + step))
        for key, tensor in self.live.items():
            if tensor.is_floating_point():
                self.tensors[key].lerp_(tensor, 1 - decay)
            else:
                self.tensors[key].copy_(tensor)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the model hold the average inside, and its own tensors again afterwards."""
        own = {key: tensor.detach().clone() for key, tensor in self.live.items()}
        self._put(self.tensors)
        try:
            yield
        finally:
            self._put(own)

    @torch.no_grad()
    def _put(self, tensors: dict[str, Tensor]) -> None:
        for key, tensor in self.live.items():
            tensor.copy_(tensors[key])
