"""A model cut in two: what runs once for each image, and what runs and learns at every step."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from surgery.nets.assemble import Model


def prefix_names(model: Model, cut: int) -> list[str]:
    """Return the names of the activations that training from stage `cut` on needs at most."""
    names = [str(stage) for stage in model.head_stages if stage < cut]
    return names + (["state"] if cut <= max(model.head_stages) else [])


def encode_prefix(model: Model, images: Tensor, cut: int) -> dict[str, Tensor]:
    """Run the stages before `cut`.

    Args:
        images: (n, h, w, 3) uint8.

    Returns:
        The head's features from these stages by stage index, and under `state` the input of stage
        `cut` where the head needs it and it is not the last of the features itself.
    """
    stop = min(cut, max(model.head_stages) + 1)
    state, features = model.backbone.run(model.normalise(images), 0, stop)
    kept = {str(stage): features[stage] for stage in model.head_stages if stage < cut}
    if cut <= max(model.head_stages) and not (str(cut - 1) in kept and state is features[cut - 1]):
        kept["state"] = state
    return kept


def set_head_norms(model: Model, images: int) -> None:
    """Let the head's batch norm learn from a batch, but not from one image, whose map may be one position.

    Args:
        model: In training.
        images: Images of the batch.
    """
    for module in model.head.modules():
        if isinstance(module, _BatchNorm):
            module.train(images > 1)


class Suffix(nn.Module):
    """What is left of the model after its frozen stages: the part that a step runs and trains.

    Args:
        model: The model.
        cut: First stage that learns.
        tap: A stage from `cut` on, up to the deepest that the head uses, whose feature map is returned
            beside the logits; None: the logits alone.
    """

    def __init__(self, model: Model, cut: int, tap: int | None = None) -> None:
        super().__init__()
        self.model = model
        self.cut = cut
        self.tap = tap

    def forward(self, inputs: dict[str, Tensor], size: tuple[int, int]) -> Any:
        """Answer a batch's inputs (see `Batch`).

        Returns:
            Logits, (n, c) or (n, c, h, w); with a `tap` also its feature map, (n, d, h', w').
        """
        model, cut = self.model, self.cut
        if cut == 0:
            inputs = {"state": model.normalise(inputs["images"])}
        features = {stage: inputs[str(stage)] for stage in model.head_stages if stage < cut}
        last = max(model.head_stages)
        if cut <= last:
            state = inputs["state"] if "state" in inputs else inputs[str(cut - 1)]
            _, more = model.backbone.run(state, cut, last + 1)
            features |= {stage: more[stage - cut] for stage in range(cut, last + 1)}
        logits = model.decode([features[stage] for stage in model.head_stages], size)
        return logits if self.tap is None else (logits, features[self.tap])
