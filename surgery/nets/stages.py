"""One stage: a run of a backbone's top-level modules that can be started from a stored state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class StageInfo:
    """What is known of a stage without running it."""

    name: str
    """`stage1`, `stage2`, … in the order they run, or `conv_head`."""
    stride: int
    """Pixels of the input per pixel of the feature map, in each direction."""
    channels: int
    """Channels of the feature map."""
    layers: int
    """Layers with a weight matrix or kernel: convolutions and linear layers."""
    parameters: int
    """Parameters, batch-norm statistics not counted."""
    exact: bool = True
    """False: convolutions without padding make the map a little smaller than input over stride."""


@dataclass(frozen=True)
class Tap:
    """Where a stage's feature map is read."""

    module: str
    """Dotted name of the module inside the full network."""
    before: bool = False
    """True: what enters the module. False: what leaves it."""


class Stage(nn.Module):
    """Runs some of a network's modules, one after the other, and reads one feature map.

    The modules keep the names they have in the full network (`features.0`, `layer1`), so the stage's own
    state-dict keys are those of the network.

    Args:
        modules: Dotted name and module, in running order.
        tap: Where the feature map is read: at one of `modules`, or deeper inside one.
        channels_last: The network's maps are (n, h, w, c); the feature map is turned to (n, c, h, w).
    """

    def __init__(self, modules: list[tuple[str, nn.Module]], tap: Tap, channels_last: bool) -> None:
        super().__init__()
        self.steps = tuple(name for name, _ in modules)
        self.tap = tap
        self.channels_last = channels_last
        self.copies_input = False  # set where the first layer would overwrite the stored state
        for name, module in modules:
            *path, leaf = name.split(".")
            parent: nn.Module = self
            for part in path:
                if part not in parent._modules:
                    parent.add_module(part, nn.Module())
                parent = parent.get_submodule(part)
            parent.add_module(leaf, module)

    def forward(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """Map the state before this stage to (state after it, feature map (n, c, h, w))."""
        if self.copies_input:
            state = state.clone()
        if self.tap.module == self.steps[-1] and not self.tap.before:
            state = self._walk(state)
            feature = state
        else:
            state, feature = self._walk_tapped(state)
        if self.channels_last:
            feature = feature.permute(0, 3, 1, 2)  # (n, h, w, c) -> (n, c, h, w)
        return state, feature

    def _walk(self, state: Tensor) -> Tensor:
        for name in self.steps:
            state = self.get_submodule(name)(state)
        return state

    def _walk_tapped(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """Run with a hook on the tapped module; the hook is gone afterwards, also after a failure."""
        caught: list[Tensor] = []
        with read_tap(self, self.tap, caught):
            state = self._walk(state)
        return state, caught[0]


@contextmanager
def read_tap(net: nn.Module, tap: Tap, caught: list[Tensor]) -> Iterator[None]:
    """While open, append a copy of what passes the tap: later layers may overwrite the original."""
    module = net.get_submodule(tap.module)
    if tap.before:
        handle = module.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0].clone()))
    else:
        handle = module.register_forward_hook(lambda _, inputs, output: caught.append(output.clone()))
    try:
        yield
    finally:
        handle.remove()


def count_layers(net: nn.Module) -> int:
    """Number of layers with a weight matrix or kernel: convolutions and linear layers."""
    weights = (module._parameters.get("weight") for module in net.modules())
    return sum(isinstance(weight, Tensor) and weight.ndim >= 2 for weight in weights)


def count_parameters(net: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in net.parameters())
