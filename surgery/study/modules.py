"""A network as a row of modules: the groups of weights that studies rewind, measure and compare."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from surgery.nets.assemble import Model
from surgery.nets.stages import Stage

State = dict[str, Tensor]
"""Parameters and buffers by their key in the model."""


@dataclass(frozen=True)
class Module:
    """Weights that belong together: a convolution with its batch norm, a residual block, the head."""

    name: str
    """As in the network, such as `features.0` or `blocks.2.1`; `head` is all that is grafted on."""
    stage: int
    """Index of the backbone's stage that holds it; the number of stages for the head."""
    keys: tuple[str, ...]
    """Keys of its parameters and buffers in the model's state."""
    parameters: tuple[str, ...]
    """Those of them that are parameters."""


def list_modules(model: Model) -> tuple[Module, ...]:
    """Return the modules of a model, shallow to deep.

    A block is taken whole. What has no kernel of its own, such as a batch norm, joins the layer before it.

    References:
        Chatterji, Neyshabur, Sedghi 2020, arXiv:1912.00528, section 2 (what a module is).
    """
    state, parameters = set(model.state_dict()), {name for name, _ in model.named_parameters()}
    found = []
    for k, stage in enumerate(model.backbone.stages):
        groups: list[tuple[str, list[str]]] = []
        for name, module in _blocks(cast(Stage, stage)):
            prefix = f"backbone.stages.{k}.{name}."
            keys = [key for key in model.state_dict() if key.startswith(prefix)]
            if any(parameter.ndim > 1 for parameter in module.parameters()) or not groups:
                groups.append((name, keys))
            else:
                groups[-1][1].extend(keys)
        found += [_module(name, k, keys, parameters) for name, keys in groups if keys]
    head = [key for key in sorted(state) if key.startswith("head.")]
    if head:
        found.append(_module("head", len(model.backbone.stages), head, parameters))
    return tuple(found)


def _module(name: str, stage: int, keys: list[str], parameters: set[str]) -> Module:
    return Module(name, stage, tuple(keys), tuple(key for key in keys if key in parameters))


def _blocks(stage: Stage) -> Iterator[tuple[str, nn.Module]]:
    """Yield the stage's modules in order; a row of several is opened."""
    for name in stage.steps:
        yield from _opened(name, stage.get_submodule(name))


def _opened(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    if not isinstance(module, nn.Sequential):
        yield name, module
        return
    for child, each in module.named_children():
        yield from _opened(f"{name}.{child}", each)


def copy_state(model: nn.Module) -> State:
    """Return the model's parameters and buffers, which it may change without changing them."""
    return {key: value.detach().clone() for key, value in model.state_dict().items()}


def mix_states(states: list[State], weights: list[float]) -> State:
    """Return the weighted sum of states; a weight of 1 beside zeros gives that state bit for bit.

    What is not a number of its own, such as the count of batches a batch norm has seen, is the first's.
    """
    mixed = {}
    for key, first in states[0].items():
        if first.is_floating_point():
            parts = [state[key] * weight for state, weight in zip(states, weights, strict=True) if weight]
            mixed[key] = sum(parts[1:], parts[0]) if parts else first * 0.0
        else:
            mixed[key] = first
    return mixed


def distance(first: State, second: State, keys: tuple[str, ...]) -> float:
    """Return the L2 distance of two states over some of their tensors; over none it is 0."""
    squares = [((first[key].double() - second[key].double()) ** 2).sum() for key in keys]
    return math.sqrt(sum(float(square) for square in squares))


def first_difference(first: State, second: State, model: Model) -> int:
    """Return the index of the first stage of the backbone in which two states differ.

    The number of stages where they differ in the head alone, or in nothing.
    """
    for k in range(len(model.backbone.stages)):
        prefix = f"backbone.stages.{k}."
        keys = [key for key in first if key.startswith(prefix)]
        if any(not first[key].equal(second[key]) for key in keys):
            return k
    return len(model.backbone.stages)
