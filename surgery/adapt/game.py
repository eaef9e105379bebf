"""What a method of adaptation may use in one step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from surgery.adapt.pairs import Pair
from surgery.adapt.seen import Seen, see
from surgery.artifact.manifest import OutputSpec
from surgery.train.cut import Suffix, set_head_norms
from surgery.train.feed import Batch
from surgery.train.optimizers import COMPANION
from surgery.train.rule import Update


@dataclass(frozen=True)
class Game:
    """One step of two domains.

    Attributes:
        update: The network and the way down a loss.
        output: What the logits mean.
        strength: How much the second domain counts in the end.
        confidence: Probability from which a pseudo-label counts.
    """

    update: Update
    output: OutputSpec
    strength: float
    confidence: float

    @property
    def trade(self) -> float:
        """How much the second domain counts now: from 0 to `strength`.

        References:
            Ganin & Lempitsky 2015, arXiv:1409.7495, section 4: 2 / (1 + exp(−10 p)) − 1.
        """
        return self.strength * (2 / (1 + math.exp(-10 * self.update.done)) - 1)

    @property
    def critic(self) -> nn.Module:
        """The domain classifier, or whatever else learns beside the model."""
        return cast(nn.Module, getattr(self._model, COMPANION))

    @property
    def features(self) -> list[Tensor]:
        """The backbone's tensors that learn."""
        return [p for p in self._model.backbone.parameters() if p.requires_grad]

    def see(self, batch: Batch) -> Seen:
        """Run the network on a batch. Batch norm that learns does not where one image would be all it has."""
        set_head_norms(self._model, len(batch.items))
        return see(self.update.suffix, batch, self.output)

    def ask_teacher(self, batch: Batch) -> Tensor:
        """Return the logits that the moving average of the weights gives for a batch; no gradient."""
        assert self.update.average is not None
        suffix, model = self.update.suffix, self._model
        held = {f"model.{key}": tensor for key, tensor in self.update.average.tensors.items()}
        modes = [(module, module.training) for module in model.modules()]
        model.eval()
        try:
            with torch.no_grad():
                logits, _ = functional_call(suffix, held, (batch.inputs, batch.size), strict=False)
        finally:
            for module, learning in modes:
                module.training = learning
        return cast(Tensor, logits)

    def task_loss(self, seen: Seen, pair: Pair) -> Tensor:
        """Return the loss of the source's answers against its labels."""
        return self.update.loss(seen.logits, pair.targets)

    def stay(self) -> None:
        """End a step that moves nothing."""
        self.update.stay()

    def descend(self, loss: Tensor) -> float:
        """Move all that learns down a loss; return the loss."""
        return self.update.descend(loss)

    @contextmanager
    def restored(self, tensors: Iterable[Tensor]) -> Iterator[None]:
        """Put tensors back afterwards as they are now, and what the optimizer remembers of them."""
        kept = [(tensor, tensor.detach().clone(), self._remembered(tensor)) for tensor in tensors]
        yield
        memory = self.update.optimizer.state
        with torch.no_grad():
            for tensor, value, state in kept:
                tensor.copy_(value)
                if state is None:
                    memory.pop(tensor, None)
                else:
                    memory[tensor] = state

    def _remembered(self, tensor: Tensor) -> dict[str, Any] | None:
        state = self.update.optimizer.state.get(tensor)
        if not state:
            return None
        return {key: value.clone() if isinstance(value, Tensor) else value for key, value in state.items()}

    @property
    def _model(self) -> Any:
        suffix = self.update.suffix
        return cast(Suffix, getattr(suffix, "module", suffix)).model
