"""Two small domains: stripes, and the same stripes in the negative and in colour; boxes likewise."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image

from surgery.adapt.methods import METHODS
from surgery.artifact.manifest import InputSpec
from surgery.config import AdaptConfig
from surgery.data.balance import class_frequencies
from surgery.data.readers import read_table
from surgery.data.targets import resolve_target
from surgery.data.unlabelled import read_unlabelled
from surgery.nets.assemble import build_model
from surgery.nets.weights import LoadedWeights
from surgery.recipes.adapting import build_adaptation
from surgery.recipes.domains import Domains, plan
from surgery.train.device import make_accelerator
from surgery.train.engine import Loop
from surgery.train.reporting import Reporter

NET = "test_efficientnet"


def write_png(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def stripes(label: str, rng: np.random.Generator, side: int = 32) -> np.ndarray:
    wave = (np.arange(side) + rng.integers(8)) // 4 % 2 * 120
    plane = np.tile(wave[:, None], (1, side)) if label == "lying" else np.tile(wave, (side, 1))
    return plane[:, :, None] + rng.integers(0, 80, (side, side, 3))


def draw_labels(root: Path, train: int = 8, val: int = 4, target: int = 10) -> tuple[Path, Path]:
    """Return folders of labelled stripes, and of stripes in the negative without labels."""
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for label in ("lying", "standing"):
            for i in range(count):
                write_png(root / "source" / split / label / f"{i}.png", stripes(label, rng))
    for i in range(target):
        label = ("lying", "standing")[i % 2]
        write_png(root / "target" / f"{label}-{i}.png", 255 - stripes(label, rng) * (1, 0.7, 0.5))
    return root / "source", root / "target"


def draw_masks(root: Path, train: int = 6, val: int = 3, target: int = 5) -> tuple[Path, Path]:
    """Return folders of bright boxes with masks, and of dark boxes without."""
    rng = np.random.default_rng(1)
    (root / "source").mkdir(parents=True)
    (root / "source" / "classes.txt").write_text("ground\nbox\n")
    for split, count in (("train", train), ("val", val), ("target", target)):
        for i in range(count):
            pixels = rng.integers(0, 90, (40, 48, 3))
            mask = np.zeros((40, 48), np.uint8)
            x, y = rng.integers(2, 20, 2)
            pixels[y : y + 14, x : x + 14] += 120
            mask[y : y + 14, x : x + 14] = 1
            if split == "target":
                write_png(root / "target" / f"{i}.png", pixels // 2)
                continue
            write_png(root / "source" / split / "images" / f"{i}.png", pixels)
            write_png(root / "source" / split / "masks" / f"{i}.png", mask)
    return root / "source", root / "target"


def make_domains(root: Path, task: str, net: str = NET, **images: int) -> Domains:
    """A random model, and the two domains it is to be adapted between."""
    source, target = (draw_masks if task == "segment" else draw_labels)(root, **images)
    table = read_table(source)
    targets = resolve_target(table, ("box",) if task == "segment" else (), ())
    spec = InputSpec("native") if task == "segment" else InputSpec("crop", 32, 32)
    head = "deconv" if task == "segment" else "avg"
    weights = LoadedWeights(None, {})
    model = build_model(net, head, task, targets.output.logits, None, 0.0, weights, 0)
    parent: Any = SimpleNamespace(task=task, input=spec, strategy={"phases": [{"first": 99}]})
    unlabelled, _ = read_unlabelled([target], table.task, table.classes, 6)
    prior = class_frequencies(table, targets).astype(np.float32)
    return Domains(model, parent, table, targets, unlabelled, None, prior)


def make_loop(domains: Domains, method: str, folder: Path, **options: Any) -> Loop:
    chosen = {"epochs": 2, "batch_size": 4, "device": "cpu", "trackers": (), "lr": 1e-3} | options
    config = AdaptConfig("tiny@1", ("t",), "tiny", methods=(method,), **chosen)
    folder.mkdir(parents=True, exist_ok=True)
    accelerator = make_accelerator("cpu", "fp32")
    return build_adaptation(
        config, domains, plan(config, domains, method), accelerator, folder, Reporter(quiet=True)
    )


def methods(task: str, net: str = NET) -> list[str]:
    return [name for name, method in METHODS.items() if task in method.tasks]


def state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def moved(before: dict[str, torch.Tensor], model: torch.nn.Module) -> set[str]:
    return {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
