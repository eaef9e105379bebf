"""Full fine-tuning: images per second of the training loop, against the bare step on tensors in memory.

    python -m bench.step [--data HYMENOPTERA] [--backbones …] [--rounds 3] [--images 128] [-- more options]

The loop is the real one: files, augmentation, its own steps. The bare step is forward, backward and
optimizer of a copy of the same network on batches that lie on the device already, normalised. Both run
in one process, an epoch of the one after an epoch of the other, so that what else the machine does
meets both. On a GPU also with bf16 and, the bare step alone, compiled. `waits` is the share of the
loop's time in which it has no batch. `by processor time` is the same share counted in processor time,
which others on the machine cannot touch; what threads wait for each other is missing in it.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.common import clean_room, data_folder, publish, run_command

BACKBONES = ("tf_efficientnet_lite0", "resnet50")
BATCH, SIZE = 32, 224


def main() -> None:
    """Run the benchmark, or, inside of it, one measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data")
    parser.add_argument("--backbones", default=",".join(BACKBONES))
    parser.add_argument("--batch-size", type=int, default=BATCH)
    parser.add_argument("--size", type=int, default=SIZE)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=128, help="of train, an epoch")
    parser.add_argument("--precision", help=argparse.SUPPRESS)
    options = parser.parse_args()
    data = data_folder(options.data, "hymenoptera")
    if options.precision:
        print(json.dumps(measure(data, options)))
        return
    names = tuple(options.backbones.split(","))
    compare(data, names, options.batch_size, options.size, options.rounds, options.images)


def compare(
    data: Path, backbones: tuple[str, ...], batch_size: int, size: int, rounds: int = 3, images: int = 128
) -> None:
    """Measure each network in a process of its own; publish."""
    import torch

    rows = []
    for backbone in backbones:
        for precision in ("fp32", "bf16") if torch.cuda.is_available() else ("fp32",):
            command = [sys.executable, "-m", "bench.step", "--data", data, "--backbones", backbone]
            command += ["--batch-size", batch_size, "--size", size, "--rounds", rounds]
            command += ["--images", images, "--precision", precision]
            with clean_room() as environment:
                done = run_command([str(word) for word in command], environment)
            rows.append({"backbone": backbone, **done.answer, "peak MiB": done.peak_mib})
            publish("step", f"full fine-tuning at {size}×{size}, batches of {batch_size}", rows)


def measure(data: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Train with the loop, a bare epoch behind each epoch; return the row of the table."""
    from surgery.train.device import make_accelerator

    accelerator = make_accelerator("auto", options.precision)
    clock = Clock(accelerator.device)
    with tempfile.TemporaryDirectory() as folder:
        loop = make_loop(data, options, accelerator, Path(folder), clock)
        model = copy.deepcopy(loop.model)
        bare = {"bare": make_bare(loop, model, options, accelerator.autocast)}
        if accelerator.device.type == "cuda":
            bare["compiled"] = make_bare(loop, copy.deepcopy(model), options, accelerator.autocast, True)
        clock.between = bare
        loop.run(False)
    middle = {name: statistics.median(values[1:]) for name, values in clock.seconds.items()}  # first: warm-up
    used = {name: statistics.median(values[1:]) for name, values in clock.processor.items()}
    images = {name: options.images / seconds for name, seconds in middle.items()}
    return {
        "precision": options.precision,
        "loop images/s": images["loop"],
        **{f"{name} images/s": images[name] for name in bare},
        "share of bare": images["loop"] / images["bare"],
        "by processor time": used["bare"] / used["loop"],
        "waits": statistics.median(clock.waits[1:]) / middle["loop"],
    }


class Clock:
    """A reporter that times the loop's epochs and runs the bare ones between them."""

    def __init__(self, device: Any) -> None:
        self.device = device
        self.between: dict[str, Callable[[], None]] = {}
        self.seconds: dict[str, list[float]] = {}
        self.processor: dict[str, list[float]] = {}
        self.waits: list[float] = []

    def line(self, text: str) -> None:
        """Print nothing; the table says what counts."""

    def epoch(self, row: dict[str, Any], better: bool) -> None:
        """Print nothing."""

    def update(self, done: int, total: int, **values: float) -> None:
        """Print nothing."""

    @contextmanager
    def task(self, name: str) -> Iterator[Clock]:
        """Time an epoch; then the bare ones."""
        with self._timed("loop"):
            yield self
        for other, run in self.between.items():
            with self._timed(other):
                run()

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        import torch

        started, used = time.perf_counter(), time.process_time()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        self.seconds.setdefault(name, []).append(time.perf_counter() - started)
        self.processor.setdefault(name, []).append(time.process_time() - used)

    def watch(self, feed: Any) -> Any:
        """Note how long the loop waits for the batches of a feed."""
        original = feed.epoch

        def epoch(*arguments: Any) -> Iterator[Any]:
            stream, waited = original(*arguments), 0.0
            while True:
                started = time.perf_counter()
                batch = next(stream, None)
                waited += time.perf_counter() - started
                if batch is None:
                    break
                yield batch
            self.waits.append(waited)

        feed.epoch = epoch
        return feed


def make_loop(data: Path, options: argparse.Namespace, accelerator: Any, folder: Path, clock: Clock) -> Any:
    """Return the loop of `finetune --strategy full` on a part of the data, with random weights."""
    from surgery.config import FinetuneConfig
    from surgery.data.readers import read_table
    from surgery.data.targets import resolve_target
    from surgery.recipes.finetune import prepare_model, resolve_config, resolve_input
    from surgery.recipes.training import Material, build_loop
    from surgery.train.strategies import plan_phases, resolve_rates

    config = FinetuneConfig(
        data=str(data), name="step", backbone=options.backbones, strategy="full", weights="random",
        epochs=options.rounds + 1, batch_size=options.batch_size, image_size=(options.size, options.size),
    )  # fmt: skip
    table = read_table(data, "classify")
    stride = max(1, len(table.of("train")) // options.images)
    train = table.of("train")[::stride][: options.images]
    options.images = len(train)
    table = dataclasses.replace(table, items=(*train, *table.of("val")[:2]))
    targets = resolve_target(table, (), ())
    spec = resolve_input(config, table)
    model, weights, config = prepare_model(config, table, targets)
    spec = dataclasses.replace(spec, mean=model.backbone.mean, std=model.backbone.std)
    config = resolve_config(config, model, spec, weights)
    names = tuple(stage.name for stage in model.backbone.info)
    config = resolve_rates(config, "classify", names)
    phases = plan_phases(config, "classify", names)
    material = Material(model, table, targets, spec, None)
    loop = build_loop(config, material, phases, accelerator, folder, clock)  # type: ignore[arg-type]
    open_feed = loop.open_feed
    loop.open_feed = lambda first: clock.watch(open_feed(first))
    return loop


def make_bare(
    loop: Any, model: Any, options: argparse.Namespace, autocast: Callable[[], Any], compiled: bool = False
) -> Callable[[], None]:
    """Return an epoch of bare steps of a model on random images that lie in memory."""
    import torch
    from torch.nn import functional

    from surgery.nets.backbone import set_trainable
    from surgery.train.optimizers import make_optimizer

    device = loop.accelerator.device
    model.to(device).to(memory_format=torch.channels_last).train()
    set_trainable(model.backbone, 0, True)
    optimizer = make_optimizer(model, loop.phases[0], loop.options.weight_decay)
    last = max(model.head_stages) + 1
    rest = [options.images % options.batch_size] if options.images % options.batch_size else []
    sizes = [options.batch_size] * (options.images // options.batch_size) + rest
    images = torch.randn(options.batch_size, 3, options.size, options.size, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(options.batch_size, device=device) % 2

    def forward(x: Any) -> Any:
        _, features = model.backbone.run(x, 0, last)
        return model.decode([features[stage] for stage in model.head_stages], x.shape[2:])

    forward = torch.compile(forward) if compiled else forward

    def epoch() -> None:
        for size in sizes:
            with autocast():
                logits = forward(images[:size])
            functional.cross_entropy(logits.float(), labels[:size]).backward()
            optimizer.step()
            optimizer.zero_grad()

    return epoch


if __name__ == "__main__":
    main()
