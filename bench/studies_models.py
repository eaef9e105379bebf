"""Comparing two models: CKA over minibatches against full Gram matrices, and a line that runs what both
have in common once against one that runs everything at every place. The numbers must agree.

python -m bench.studies_models [--data DATA] [--images 153] [--size 96] [--points 11] [--frozen 4]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch

from bench.common import data_folder, publish
from surgery.artifact.manifest import InputSpec
from surgery.data.readers import read_table
from surgery.data.targets import resolve_target
from surgery.nets.assemble import Model, build_model
from surgery.nets.weights import load_weights
from surgery.study.cka import LinearCKA
from surgery.study.line import walk_line
from surgery.study.measure import flatten, measure
from surgery.study.modules import State, copy_state, mix_states
from surgery.study.sample import Sample, draw_sample, hold

T = TypeVar("T")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--images", type=int, default=153)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--points", type=int, default=11)
    parser.add_argument("--frozen", type=int, default=4, help="stages that both models share, for the line")
    options = parser.parse_args()
    table = read_table(data_folder(options.data, "hymenoptera"))
    targets = resolve_target(table)
    model = build_model(
        options.backbone, "avg", "classify", targets.output.logits, None, 0.0,
        load_weights(options.backbone, "imagenet"), 0,
    )  # fmt: skip
    spec = InputSpec("resize", options.size, options.size)
    sample = draw_sample(
        model, table, targets, spec, "val", options.images, 0, torch.device("cpu"), batch_size=32
    )
    rows = time_cka(model.eval(), sample) + time_line(model, sample, options.points, options.frozen)
    publish(
        "studies_models", f"{options.backbone} at {options.size}, {sample.images} images", rows,
        images=sample.images, size=options.size,
    )  # fmt: skip


def time_cka(model: Model, sample: Sample) -> list[dict[str, Any]]:
    """Return the rows of CKA of all stages between a model and one moved a little."""
    start = copy_state(model)
    moved = shift(model, 0)

    def features(state: State, images: torch.Tensor) -> list[np.ndarray]:
        model.load_state_dict(state)
        with torch.inference_mode():
            return [flatten(feature) for feature in model.backbone.run(model.normalise(images))[1]]

    pairs = [
        (features(start, batch.inputs["images"]), features(moved, batch.inputs["images"]))
        for batch in sample.batches
    ]
    model.load_state_dict(start)
    count = len(model.backbone.info)

    def in_minibatches() -> list[float]:
        stages = [LinearCKA() for _ in range(count)]
        for mine, theirs in pairs:
            for stage, x, y in zip(stages, mine, theirs, strict=True):
                if len(x) >= 4:
                    stage.add(x, y)
        return [stage.value for stage in stages]

    def in_full() -> list[float]:
        whole = [[np.concatenate([pair[side][k] for pair in pairs]) for side in (0, 1)] for k in range(count)]
        return [naive_cka(x, y) for x, y in whole]

    quick, seconds = clock(in_minibatches)
    slow, naive_seconds = clock(in_full)
    apart = max(abs(a - b) for a, b in zip(quick, slow, strict=True))
    return [
        {
            "what": "CKA of all stages, full Gram matrices",
            "seconds": naive_seconds,
            "times": 1.0,
        },
        {
            "what": "CKA of all stages, minibatches of 32",
            "seconds": seconds,
            "times": naive_seconds / seconds,
            "largest difference": apart,
        },
    ]


def naive_cka(x: np.ndarray, y: np.ndarray) -> float:
    """Return unbiased CKA by the formula, matrix by matrix: Song et al. 2012, eq. 5."""

    def hsic(K: np.ndarray, L: np.ndarray) -> float:
        n = len(K)
        K, L = K * (1 - np.eye(n)), L * (1 - np.eye(n))
        shift = K.sum() * L.sum() / ((n - 1) * (n - 2))
        return float(np.trace(K @ L) + shift - 2 / (n - 2) * (K @ L).sum()) / (n * (n - 3))

    x, y = x.astype(np.float64), y.astype(np.float64)
    grams = [(x @ x.T, y @ y.T), (x @ x.T, x @ x.T), (y @ y.T, y @ y.T)]
    both, first, second = (hsic(K, L) for K, L in grams)
    return both / (first * second) ** 0.5


def time_line(model: Model, sample: Sample, points: int, frozen: int) -> list[dict[str, Any]]:
    """Return the rows of lines between a model and one of which the first stages are the same."""
    rows = []
    for first in (frozen, 0):
        start, moved = copy_state(model), shift(model, first)

        def naive(start: State = start, moved: State = moved) -> list[float]:
            losses = []
            for k in range(points):
                t = k / (points - 1)
                model.load_state_dict(mix_states([start, moved], [1 - t, t]))
                losses.append(measure(model, hold(model, sample, 0)).loss)
            model.load_state_dict(start)
            return losses

        def held(start: State = start, moved: State = moved) -> list[float]:
            return list(walk_line(model, start, moved, sample, lambda done, total: None, points).losses)

        quick, seconds = clock(held)
        slow, naive_seconds = clock(naive)
        said = f"line of {points} places, the first {first} stages the same"
        rows.append({"what": f"{said}, all run anew", "seconds": naive_seconds, "times": 1.0})
        rows.append(
            {
                "what": f"{said}, these run once",
                "seconds": seconds,
                "times": naive_seconds / seconds,
                "largest difference": max(abs(a - b) for a, b in zip(quick, slow, strict=True)),
            }
        )
    return rows


def shift(model: Model, first: int) -> State:
    """Return the weights with those of the stages from `first` on, and of the head, a little moved."""
    own = copy_state(model)
    noise = torch.Generator().manual_seed(0)
    kept = tuple(f"backbone.stages.{k}." for k in range(first))
    names = {name for name, _ in model.named_parameters() if not name.startswith(kept)}
    return {
        key: value + 0.02 * value.abs().mean() * torch.randn(value.shape, generator=noise)
        if key in names
        else value
        for key, value in own.items()
    }


def clock(work: Callable[[], T]) -> tuple[T, float]:
    """Return what a piece of work gives, and the processor's seconds that it took: others may run beside."""
    started = time.process_time()
    found = work()
    return found, time.process_time() - started


if __name__ == "__main__":
    main()
