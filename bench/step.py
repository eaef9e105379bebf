"""Full fine-tuning: images per second of the training loop, against the bare step on tensors in memory.

    python -m bench.step [--data HYMENOPTERA] [--backbones …] [--epochs 3] [--images 128] [--size 224]

The loop is the real one: files, augmentation, its own steps. The bare step is forward, backward and
optimizer of a copy of the same network on a batch that lies on the device already, normalised. Both run
in one process, a step of the one after a step of the other (eight on a GPU), and what is compared is each
step with the next one, so that what else the machine does meets both. The threads that read images rest
while the bare step runs. On a GPU also with bf16 and, the bare step alone, compiled. `waits` is the share
of the loop's time in which it has no batch.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import statistics
import sys
import tempfile
import threading
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
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--images", type=int, default=128, help="of train, an epoch")
    parser.add_argument("--precision", help=argparse.SUPPRESS)
    options = parser.parse_args()
    data = data_folder(options.data, "hymenoptera")
    if options.precision:
        print(json.dumps(measure(data, options)))
        return
    names = tuple(options.backbones.split(","))
    compare(data, names, options.batch_size, options.size, options.epochs, options.images)


def compare(
    data: Path, backbones: tuple[str, ...], batch_size: int, size: int, epochs: int = 3, images: int = 128
) -> None:
    """Measure each network in a process of its own; publish."""
    import torch

    rows = []
    for backbone in backbones:
        for precision in ("fp32", "bf16") if torch.cuda.is_available() else ("fp32",):
            command = [sys.executable, "-m", "bench.step", "--data", data, "--backbones", backbone]
            command += ["--batch-size", batch_size, "--size", size, "--epochs", epochs]
            command += ["--images", images, "--precision", precision]
            with clean_room() as environment:
                done = run_command([str(word) for word in command], environment)
            rows.append({"backbone": backbone, **done.answer, "peak MiB": done.peak_mib})
            publish("step", f"full fine-tuning at {size}×{size}, batches of {batch_size}", rows)


def measure(data: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Train with the loop, bare steps between its own; return the row of the table."""
    from surgery.train.device import make_accelerator

    accelerator = make_accelerator("auto", options.precision)
    clock = Clock(accelerator.device)
    with tempfile.TemporaryDirectory() as folder:
        loop = make_loop(data, options, accelerator, Path(folder), clock)
        model = copy.deepcopy(loop.model)
        bare = {"bare": make_bare(loop, model, options, accelerator.autocast)}
        if accelerator.device.type == "cuda":
            bare["compiled"] = make_bare(loop, copy.deepcopy(model), options, accelerator.autocast, True)
        clock.bare = bare
        loop.run(False)
    seconds = {name: values[1:] for name, values in clock.seconds.items()}  # the first is warm-up
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    images = {f"{name} images/s": options.batch_size * clock.every / s for name, s in middle.items()}
    shares = [bare / loop for loop, bare in zip(seconds["loop"], seconds["bare"], strict=True)]
    return {
        "precision": options.precision,
        **images,
        "share of bare": statistics.median(shares),
        "pairs": len(shares),
        "waits": statistics.median(clock.waits[1:]) / middle["loop"],
    }


class Clock:
    """A reporter that times the loop's steps and runs bare ones between them."""

    def __init__(self, device: Any) -> None:
        self.cuda = device.type == "cuda"
        self.every = 8 if self.cuda else 1
        """Steps in a row: a GPU has some of them in flight."""
        self.bare: dict[str, Callable[[], None]] = {}
        self.seconds: dict[str, list[float]] = {}
        self.waits: list[float] = []
        self._waited = self._since = 0.0
        self._reading = threading.Event()
        self._reading.set()

    def line(self, text: str) -> None:
        """Print nothing; the table says what counts."""

    def epoch(self, row: dict[str, Any], better: bool) -> None:
        """Print nothing."""

    @contextmanager
    def task(self, name: str) -> Iterator[Clock]:
        """Begin an epoch."""
        self._since, self._waited = self._now(), 0.0
        yield self

    def update(self, done: int, total: int, **values: float) -> None:
        """Take the time of the loop's last steps; then that of as many bare ones."""
        if done % self.every:
            return
        self.seconds.setdefault("loop", []).append(self._now() - self._since)
        self.waits.append(self._waited)
        self._reading.clear()
        for name, step in self.bare.items():
            started = self._now()
            for _ in range(self.every):
                step()
            self.seconds.setdefault(name, []).append(self._now() - started)
        self._reading.set()
        self._since, self._waited = self._now(), 0.0

    def watch(self, feed: Any) -> Any:
        """Note how long the loop waits for the batches of a feed, whose threads rest in between."""
        original, load = feed.epoch, feed._load

        def rested(example: Any) -> Any:
            self._reading.wait()
            return load(example)

        def epoch(*arguments: Any) -> Iterator[Any]:
            stream = original(*arguments)
            while True:
                started = time.perf_counter()
                batch = next(stream, None)
                self._waited += time.perf_counter() - started
                if batch is None:
                    break
                yield batch

        feed.epoch, feed._load = epoch, rested
        return feed

    def _now(self) -> float:
        import torch

        if self.cuda:
            torch.cuda.synchronize()
        return time.perf_counter()


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
        epochs=options.epochs, batch_size=options.batch_size, image_size=(options.size, options.size),
    )  # fmt: skip
    table = read_table(data, "classify")
    stride = max(1, len(table.of("train")) // options.images)
    train = table.of("train")[::stride][: options.images // options.batch_size * options.batch_size]
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
    loop.open_feed = lambda *given: clock.watch(open_feed(*given))
    return loop


def make_bare(
    loop: Any, model: Any, options: argparse.Namespace, autocast: Callable[[], Any], compiled: bool = False
) -> Callable[[], None]:
    """Return the bare step of a model on random images that lie in memory."""
    import torch
    from torch.nn import functional

    from surgery.nets.backbone import set_trainable
    from surgery.train.optimizers import make_optimizer

    device = loop.accelerator.device
    model.to(device).to(memory_format=torch.channels_last).train()
    set_trainable(model.backbone, 0, True)
    optimizer = make_optimizer(model, loop.phases[0], loop.options.weight_decay)
    last = max(model.head_stages) + 1
    images = torch.randn(options.batch_size, 3, options.size, options.size, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(options.batch_size, device=device) % 2

    def forward(x: Any) -> Any:
        _, features = model.backbone.run(x, 0, last)
        return model.decode([features[stage] for stage in model.head_stages], x.shape[2:])

    forward = torch.compile(forward) if compiled else forward

    def step() -> None:
        with autocast():
            logits = forward(images)
        functional.cross_entropy(logits.float(), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


if __name__ == "__main__":
    main()
