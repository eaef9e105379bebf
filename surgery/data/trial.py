"""A pipeline of the user's own, tried on noise before a run begins."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from surgery.artifact.errors import ConfigError
from surgery.artifact.image import read_size
from surgery.artifact.manifest import InputSpec
from surgery.config import CUSTOM
from surgery.data.augment import Pipeline, is_scaling, make_certain
from surgery.data.table import Table
from surgery.data.targets import IGNORE, TargetSpec
from surgery.data.transforms import View, make_view

TRIES = 12
"""Seeds tried on the smallest image."""
HELD = (240, 250)
"""Values of the mask that is tried: any value between them would be one that was interpolated."""


def try_pipeline(
    pipeline: Pipeline,
    input: InputSpec,
    table: Table,
    targets: TargetSpec,
    scales: Sequence[float] = (1.0,),
) -> None:
    """Run a pipeline as it is, and with every step applied, on noise of the sizes that it will meet.

    Args:
        pipeline: The steps, known to be right one by one.
        input: Size rule of the network's input.
        table: The data.
        targets: Which classes are learnt.
        scales: Shares of the input's sides that training goes through.

    Raises:
        ConfigError: With all that went wrong: a step failed, an image came out as what is no input of
            the network, a mask with values that it did not hold.
    """
    masks = table.task == "segment"
    allowed = {*HELD, IGNORE, *range(len(targets.output.classes))} if masks else None
    found: list[str] = []
    hints: list[str] = []
    for k, size in enumerate(_meet_sizes(pipeline, input, table)):
        for steps, scale in itertools.product((list(pipeline), make_certain(pipeline)), scales):
            try:
                view = make_view(input, CUSTOM, steps, scale)
                _try_size(view, size, allowed, TRIES if k == 0 else 2)
            except ConfigError as error:
                found.append(error.message)
                hints.append(error.hint)
    if found:
        raise ConfigError("\n".join(dict.fromkeys(found)), " ".join(dict.fromkeys(hints)))


def _try_size(view: View, size: tuple[int, int], allowed: set[int] | None, tries: int) -> None:
    width, height = size
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    blocks = rng.integers(0, 2, (height // 8 + 1, width // 8 + 1))
    mask = np.array(HELD, np.uint8)[np.kron(blocks, np.ones((8, 8), int))[:height, :width]]
    for seed in range(tries):
        seen, target = view(image, None if allowed is None else mask, seed)
        if allowed is None or target is None:
            continue
        if target.dtype != np.uint8 or target.shape != seen.shape[:2]:
            raise ConfigError("--augment does to a mask other than to its image", "Change the pipeline.")
        new = sorted(set(np.unique(target).tolist()) - allowed)
        if new:
            raise ConfigError(
                f"--augment gives masks values that stand for no class, such as {new[0]}",
                "Masks hold classes: mask_interpolation is 0 (nearest), fill_mask 255 (ignored) or a class.",
            )


def _meet_sizes(pipeline: Pipeline, input: InputSpec, table: Table) -> Sequence[tuple[int, int]]:
    """Return sizes (width, height) of images that the pipeline will meet, the smallest first."""
    if input.size_rule != "native" and (table.task == "segment" or not is_scaling(pipeline)):
        return [(input.width or 1, input.height or 1)]  # it starts from the plain view
    sizes = {read_size(item.image) for item in table.of("train")}
    chosen = {
        min(sizes),
        min(sizes, key=lambda size: size[1]),
        max(sizes, key=lambda size: size[0] * size[1]),
    }
    return sorted(chosen, key=lambda size: size[0] * size[1])
