"""Finished models of a tiny network on stripes, without the seconds that an export takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from surgery.artifact.manifest import InputSpec
from surgery.artifact.store import Store, StoredVersion
from surgery.config import FinetuneConfig
from surgery.data.readers import read_table
from surgery.data.targets import resolve_target
from surgery.deliver.package import Facts, describe
from surgery.nets.assemble import Model, build_model, describe_layers
from surgery.nets.restore import WEIGHTS_FILE
from surgery.nets.weights import load_weights
from surgery.study.sample import Sample, draw_sample
from surgery.train.checkpoint import write_tensors
from surgery.train.options import Outcome
from surgery.train.strategies import plan_phases

NET = "test_efficientnet"
CPU = torch.device("cpu")


def draw_stripes(root: Path, train: int = 8, val: int = 6) -> Path:
    """Lying and standing stripes, so many of each."""
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for label in ("lying", "standing"):
            for i in range(count):
                wave = (np.arange(32) + rng.integers(8)) // 4 % 2 * 120
                plane = np.tile(wave[:, None], (1, 32)) if label == "lying" else np.tile(wave, (32, 1))
                pixels = plane[:, :, None] + rng.integers(0, 80, (32, 32, 3))
                path = root / split / label / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.astype(np.uint8)).save(path)
    return root


def draw_boxes(root: Path, train: int = 4, val: int = 4) -> Path:
    """Bright boxes with masks."""
    rng = np.random.default_rng(1)
    (root).mkdir(parents=True)
    (root / "classes.txt").write_text("ground\nbox\n")
    for split, count in (("train", train), ("val", val)):
        for i in range(count):
            pixels, mask = rng.integers(0, 90, (40, 48, 3)), np.zeros((40, 48))
            top, left = rng.integers(4, 20, 2)
            pixels[top : top + 12, left : left + 14] += 120
            mask[top : top + 12, left : left + 14] = 1
            for kind, array in (("images", pixels), ("masks", mask)):
                path = root / split / kind / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array.astype(np.uint8)).save(path)
    return root


def tiny_facts(data: Path, name: str, seed: int) -> tuple[Model, Facts]:
    """A model at its random start, and what a manifest would tell of it."""
    table = read_table(data)
    targets, segment = resolve_target(table), table.task == "segment"
    head = "deconv" if segment else "avg"
    config = FinetuneConfig(
        str(data), name, task=table.task, backbone=NET, head=head, weights="random", seed=seed,
    )  # fmt: skip
    weights = load_weights(NET, "random")
    model = build_model(NET, head, table.task, targets.output.logits, None, 0.0, weights, seed)
    spec = InputSpec("native") if segment else InputSpec("resize", 32, 32)
    names = tuple(stage.name for stage in model.backbone.info)
    phases = plan_phases(config, table.task, names)
    layers = describe_layers(model, phases[0].first, False)
    outcome = Outcome({}, 1, [{"epoch": 0}], 1.0, "cpu", "fp32")
    return model.eval(), Facts(
        config, table, targets, spec, layers, phases, weights.source, outcome, Path("no-run")
    )


def move(model: Model, scale: float, first: int = 0, seed: int = 0) -> None:
    """Move the weights of the stages from `first` on, and of the head, by noise of their own size."""
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in [*list(model.backbone.stages)[first:], model.head]:
            for parameter in part.parameters():
                size = parameter.std() if parameter.numel() > 1 else torch.tensor(1.0)
                parameter += scale * (size + 1e-3) * torch.randn(parameter.shape, generator=noise)


def store_version(
    data: Path, name: str = "tiny", seed: int = 5, scale: float = 0.3, first: int = 0, moved_by: int = 0
) -> StoredVersion:
    """Put a model into the store that began at `seed` and was moved by noise of another seed."""
    model, facts = tiny_facts(data, name, seed)
    move(model, scale, first, moved_by)
    manifest = describe(facts, model)
    manifest = replace(manifest, data=manifest.data | {"path": str(data)})
    with Store().stage(name) as staging:
        write_tensors(staging.path / WEIGHTS_FILE, dict(model.state_dict()), {})
        (staging.path / "model.onnx").write_bytes(b"not asked")
        return staging.commit(manifest)


def sample_of(data: Path, model: Model, split: str = "val", batch_size: int = 32) -> Sample:
    """All images of a side as the network takes them."""
    table = read_table(data)
    spec = InputSpec("native") if table.task == "segment" else InputSpec("resize", 32, 32)
    return draw_sample(model, table, resolve_target(table), spec, split, 500, 0, CPU, batch_size)
