"""The methods of adaptation: what each step does, and what it needs. One function makes a new one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from surgery.adapt.critic import build_critic
from surgery.adapt.game import Game
from surgery.adapt.methods import (
    adabn,
    cdan,
    coral,
    dann,
    dann_alternating,
    entropy,
    mmd,
    output,
    self_training,
)
from surgery.adapt.pairs import Pair
from surgery.train.rule import Losses

GAME = 0.5
Build = Callable[[int, int], nn.Module]
"""Makes what learns beside the model, from the values of a row and the number of classes."""


@dataclass(frozen=True)
class Method:
    """One way to adapt a model.

    Attributes:
        learn: Learns from one pair of batches.
        said: What it does, for people.
        strength: How much the target counts in the end for classes, unless told otherwise.
        mask_strength: The same for masks, of which a pull on every position takes more: there the published
            methods count the target for a tenth to a thousandth (Tsai et al. 2018, Vu et al. 2019).
        momentum: Of the optimizer; games of two players go in circles with the usual one (Radford et al.
            2016, arXiv:1511.06434, section 3).
        build: Makes what learns beside the model; None for nothing.
        tasks: What it can be used for.
        teaches: It needs a teacher, and the target's images plain beside their augmented view.
        measures: It learns nothing: it measures batch norm anew, in all stages.
    """

    learn: Callable[[Game, Pair], Losses]
    said: str
    strength: float = 1.0
    mask_strength: float = 0.1
    momentum: float = 0.9
    build: Build | None = None
    tasks: tuple[str, ...] = ("classify", "segment")
    teaches: bool = False
    measures: bool = False


METHODS: dict[str, Method] = {
    "dann": Method(
        dann.learn,
        "gradient reversal into a domain classifier of the features",
        momentum=GAME,
        build=lambda width, classes: build_critic(width),
    ),
    "dann-alternating": Method(
        dann_alternating.learn,
        "the same game in two steps a batch",
        momentum=GAME,
        build=lambda width, classes: build_critic(width),
    ),
    "cdan": Method(
        cdan.learn,
        "a domain classifier of features and answers together",
        momentum=GAME,
        build=cdan.Conditioned,
    ),
    "coral": Method(coral.learn, "equal covariances of the features"),
    "mmd": Method(mmd.learn, "equal means of the features under several kernels"),
    "adabn": Method(adabn.learn, "batch norm measured on the target, without a gradient", measures=True),
    "entropy": Method(entropy.learn, "sure answers on the target", mask_strength=0.01),
    "output": Method(
        output.learn,
        "a domain classifier of the masks",
        momentum=GAME,
        build=lambda width, classes: output.build_judge(classes),
        tasks=("segment",),
        mask_strength=0.01,
    ),
    "self-training": Method(
        self_training.learn, "labels by a slow teacher, where it is sure", mask_strength=1.0, teaches=True
    ),
}
