"""Pretrained networks as a row of stages, each of which training can start from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from typing import Any, cast

import timm
import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from surgery.artifact.errors import ConfigError, WeightsError
from surgery.nets.catalogue import is_backbone, unknown_backbone
from surgery.nets.stages import (
    Stage,
    StageInfo,
    Tap,
    count_layers,
    count_parameters,
    read_tap,
)

PROBE_PIXELS = 64
SHOWN_KEYS = 5


class Backbone(nn.Module):
    """A network without its classifier, cut into stages.

    Attributes:
        name: timm's name of the network.
        info: One entry per stage.
        mean, std: Per channel, of the input scaled to 0–1.
        fixed_size: Side of the only input that it takes; None: any.
        pyramid: Indices of the stages with strictly rising strides, shallow to deep.
        stages: Stage k maps the state after stage k-1 to the state after stage k.
        recompute: In training, keep only what passes between stages and compute the rest again on the way
            back (Chen et al. 2016, arXiv:1604.06174): less memory, about a third more time.
    """

    def __init__(self, name: str, stages: list[Stage], info: tuple[StageInfo, ...]) -> None:
        super().__init__()
        cfg = timm.get_pretrained_cfg(name)
        self.name = name
        self.mean: tuple[float, float, float] = tuple(cfg.mean)
        self.std: tuple[float, float, float] = tuple(cfg.std)
        self.fixed_size = _fixed_size(name)
        self.info = info
        self.pyramid = _rising(info)
        self.stages = nn.ModuleList(stages)
        self.first_trainable = 0
        self.train_bn = False
        self.recompute = False

    @property
    def channels_last(self) -> bool:
        """Whether the states between stages are (n, h, w, c), not (n, c, h, w); feature maps never are."""
        return any(cast(Stage, stage).channels_last for stage in self.stages)

    def run(self, x: Tensor, start: int = 0, stop: int | None = None) -> tuple[Tensor, list[Tensor]]:
        """Run stages start … stop-1.

        Args:
            x: For start = 0 the normalised images (n, 3, h, w), else the state after stage start-1.
                It is never overwritten, so it may come from a store.
            start: First stage to run.
            stop: One past the last stage to run; None: all.

        Returns:
            The state after the last stage run, and one feature map (n, c, h/stride, w/stride) for each
            stage run, a little smaller where the stage is not `exact`. Where the state is the feature map
            they are the same tensor.
        """
        features = []
        for stage in self.stages[start:stop]:
            if self.recompute and self.training and torch.is_grad_enabled():
                contexts = partial(_around, stage)
                x, feature = checkpoint(stage, x, use_reentrant=False, context_fn=contexts)
            else:
                x, feature = stage(x)
            features.append(feature)
        return x, features

    def train(self, mode: bool = True) -> Backbone:
        """Set the mode; frozen stages stay in inference mode, batch norm too unless it is trained."""
        super().train(mode)
        for k, stage in enumerate(self.stages):
            if k < self.first_trainable:
                stage.eval()
            elif not self.train_bn:
                for module in stage.modules():
                    if isinstance(module, _BatchNorm):
                        module.eval()
        return self

    def trimmed(self, stop: int) -> Backbone:
        """Return this backbone without the stages from `stop` on; the stages are shared."""
        return Backbone(self.name, cast("list[Stage]", list(self.stages)[:stop]), self.info[:stop])

    def timm_state(self) -> dict[str, Tensor]:
        """Return the weights under timm's names for the full network."""
        return {_timm_key(key): value for key, value in self.state_dict().items()}


def _around(stage: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Return what a stage runs in the first time, and again."""
    return nullcontext(), _StatisticsKept(stage)


class _StatisticsKept(AbstractContextManager[None]):
    """While entered, batch norms that learn take the batch's statistics and leave the running ones alone."""

    def __init__(self, stage: nn.Module) -> None:
        norms = (module for module in stage.modules() if isinstance(module, _BatchNorm))
        self.norms = [(norm, norm.momentum) for norm in norms if norm.training and norm.track_running_stats]
        self.counts: list[Tensor] = []

    def __enter__(self) -> None:
        self.counts = [cast(Tensor, norm.num_batches_tracked).clone() for norm, _ in self.norms]
        for norm, _ in self.norms:
            norm.momentum = 0.0  # other switches would change what is kept for the way back

    def __exit__(self, *_: object) -> None:
        for (norm, momentum), count in zip(self.norms, self.counts, strict=True):
            norm.momentum = momentum
            cast(Tensor, norm.num_batches_tracked).copy_(count)


def set_trainable(backbone: Backbone, first: int, train_bn: bool = False) -> None:
    """Freeze the stages before `first` and train the others.

    A frozen stage keeps its parameters and its batch-norm statistics bit for bit, whatever `train()` is
    called. In a trained stage the batch norm's scale and shift are trained, its statistics only with
    `train_bn`.

    Args:
        backbone: Changed in place.
        first: Index of the first stage to train; the number of stages freezes all.
        train_bn: Let batch norm of trained stages use and update the statistics of the batch.
    """
    backbone.first_trainable = first
    backbone.train_bn = train_bn
    for k, stage in enumerate(backbone.stages):
        stage.requires_grad_(k >= first)
    backbone.train(backbone.training)


def build_backbone(name: str, state: dict[str, Tensor] | None) -> Backbone:
    """Build a backbone and fill it.

    Args:
        name: A timm model.
        state: Weights under the names of `timm.create_model(name)`; classifier weights may be missing and
            are not used. They are copied. If they are those of a cut backbone, and of nothing else, the
            stages behind the cut are left out. None: timm's random initialisation from the global generator.

    Raises:
        ConfigError: No such model, or one whose layers cannot be cut into a row of stages.
        WeightsError: Weights that do not fit, with the names.
    """
    if not is_backbone(name):
        raise unknown_backbone(name)
    if state is None:
        full = timm.create_model(name)
    else:
        with init_empty_weights(include_buffers=False):
            full = timm.create_model(name)
    stages = _cut(name, full)
    if state is not None:
        stages = _covered(stages, state)
        _fill(name, stages, full, state)
        _drop_empty(full)
    full.eval()
    info = _probe(name, stages, full)
    return Backbone(name, stages, info).eval()


def _cut(name: str, full: nn.Module) -> list[Stage]:
    """Group the network's modules into stages that end with the modules holding timm's feature maps."""
    entries = getattr(full, "feature_info", None)
    channels_last = str(getattr(full, "output_fmt", "NCHW")).endswith("NHWC")
    if not isinstance(entries, list) or not entries:
        raise _uncuttable(name, "timm names no feature maps for it")
    steps = list(_steps(full, {entry["module"] for entry in entries}))
    stages, at = [], 0
    for entry in entries:
        tap = Tap(entry["module"], before=entry.get("hook_type") == "forward_pre")
        group = []
        while at < len(steps):
            group.append(steps[at])
            at += 1
            if tap.module == group[-1][0] or tap.module.startswith(group[-1][0] + "."):
                break
        else:
            raise _uncuttable(name, f"its feature map {tap.module} is not among its layers in order")
        # VGG's last pooling is a feature map to timm, but it has nothing to keep or to train.
        if any(True for _, module in group for _ in module.parameters()):
            stages.append(Stage(group, tap, channels_last))
    tail = []
    for step in steps[at:]:
        if step[0] == "global_pool":
            break
        tail.append(step)
    if tail and tail[0][0] == "conv_head":
        stages.append(Stage(tail, Tap(tail[-1][0]), channels_last))
    return stages


def _steps(full: nn.Module, whole: set[str]) -> Iterator[tuple[str, nn.Module]]:
    """The network's modules in order; a Sequential at the top is opened once unless it is in `whole`."""
    for name, child in full.named_children():
        if isinstance(child, nn.Sequential) and name not in whole:
            yield from ((f"{name}.{sub}", module) for sub, module in child.named_children())
        else:
            yield name, child


def _covered(stages: list[Stage], state: dict[str, Tensor]) -> list[Stage]:
    """Return the stages of a stored model's backbone, which ends behind the deepest that its head used."""
    absent = [state.keys().isdisjoint(stage.state_dict()) for stage in stages]
    kept = stages[: absent.index(True)] if True in absent[1:] and not absent[0] else stages
    known = {key for stage in kept for key in stage.state_dict()}
    return kept if known.issuperset(state) else stages


def _fill(name: str, stages: list[Stage], full: nn.Module, state: dict[str, Tensor]) -> None:
    """Copy the weights in; everything wrong with them is reported together."""
    full_shapes = {key: tuple(value.shape) for key, value in full.state_dict().items()}
    tops = {step.split(".")[0] for stage in stages for step in stage.steps}
    wanted = {key for stage in stages for key in stage.state_dict()}
    missing = [k for k in sorted(wanted - set(state)) if not k.endswith("num_batches_tracked")]
    # A deeper network of the same family has every name of this one and more.
    unexpected = [k for k in state if k not in full_shapes and k.split(".")[0] in tops]
    mismatched = [
        f"{key} is {tuple(state[key].shape)}, not {full_shapes[key]}"
        for key in sorted(wanted & set(state))
        if tuple(state[key].shape) != full_shapes[key]
    ]
    if missing or unexpected or mismatched:
        others = [key for key in state if key not in full_shapes]
        raise WeightsError(
            f"these weights are not those of {name}: missing {_some(missing)}; "
            f"unknown {_some(unexpected or others)}; of another shape {_some(mismatched)}",
            "give weights of the same timm model, or name the backbone they belong to",
        )
    for stage in stages:
        own = stage.state_dict()
        copies = {k: _copy(state[k], own[k]) if k in state else own[k] for k in own}
        stage.load_state_dict(copies, assign=True)


def _drop_empty(full: nn.Module) -> None:
    """Give zeros to what is not part of the backbone, so that the whole network can be run."""
    for module in full.modules():
        for key, parameter in module._parameters.items():
            if parameter is not None and parameter.is_meta:
                module._parameters[key] = nn.Parameter(torch.zeros(parameter.shape))


def _copy(value: Tensor, like: Tensor) -> Tensor:
    return value.detach().to(device="cpu", dtype=like.dtype, copy=True).contiguous()


@torch.no_grad()
def _probe(name: str, stages: list[Stage], full: Any) -> tuple[StageInfo, ...]:
    """Run a small image through the stages and through the whole network: they must agree.

    Also finds the stages whose first layer works in place, which would spoil a stored state.
    """
    noise = torch.Generator().manual_seed(0)
    side = _fixed_size(name) or PROBE_PIXELS
    images = torch.randn(1, 3, side, side, generator=noise)
    caught: list[list[Tensor]] = [[] for _ in stages]
    try:
        with ExitStack() as taps:
            for stage, found in zip(stages, caught, strict=True):
                taps.enter_context(read_tap(full, stage.tap, found))
            full.forward_features(images)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise _uncuttable(name, f"it does not take a {side}×{side} image") from error
    info, state = [], images
    for k, (stage, found) in enumerate(zip(stages, caught, strict=True)):
        version = state._version
        try:
            after, feature = stage(state)
        except (RuntimeError, AssertionError, TypeError) as error:
            raise _uncuttable(name, "its layers do not run one after the other") from error
        stage.copies_input = state._version != version
        expected = found[0].permute(0, 3, 1, 2) if stage.channels_last else found[0]
        if feature.shape != expected.shape or not torch.allclose(feature, expected, 1e-4, 1e-5):
            raise _uncuttable(name, "its layers do not run one after the other")
        label = "conv_head" if stage.steps[0] == "conv_head" else f"stage{k + 1}"
        stride = round(side / feature.shape[-1])
        exact = stride * feature.shape[-1] == side
        layers, parameters = count_layers(stage), count_parameters(stage)
        info.append(StageInfo(label, stride, feature.shape[1], layers, parameters, exact))
        state = after
    return tuple(info)


def _fixed_size(name: str) -> int | None:
    cfg = timm.get_pretrained_cfg(name)
    return int(cfg.input_size[-1]) if cfg.fixed_input_size else None


def _rising(info: tuple[StageInfo, ...]) -> tuple[int, ...]:
    """Stages with strictly rising strides; of several with one stride the deepest."""
    deepest = {s.stride: k for k, s in enumerate(info) if s.name != "conv_head"}
    return tuple(deepest[stride] for stride in sorted(deepest))


def _timm_key(key: str) -> str:
    return re.sub(r"^stages\.\d+\.", "", key)


def _some(names: list[str]) -> str:
    if not names:
        return "none"
    more = f" and {len(names) - SHOWN_KEYS} more" if len(names) > SHOWN_KEYS else ""
    return ", ".join(names[:SHOWN_KEYS]) + more


def _uncuttable(name: str, why: str) -> ConfigError:
    return ConfigError(
        f"backbone '{name}' cannot be cut into stages: {why}",
        "take a convolutional network such as vgg16, resnet50, convnext_tiny or tf_efficientnet_lite0",
    )
