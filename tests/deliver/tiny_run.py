"""A run on a few random images, as training would leave it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from surgery.artifact.manifest import InputSpec
from surgery.config import FinetuneConfig
from surgery.data.readers import read_table
from surgery.data.targets import resolve_target
from surgery.deliver.package import Facts
from surgery.nets.assemble import Model, build_model, describe_layers
from surgery.nets.weights import load_weights
from surgery.train.options import Outcome
from surgery.train.strategies import plan_phases

NET = "test_efficientnet"


def draw(folder: Path, task: str) -> Path:
    """Six random images with labels or masks, two of them for val."""
    rng = np.random.default_rng(0)
    for i in range(8):
        split = "train" if i < 4 else "val"
        pixels = Image.fromarray(rng.integers(0, 255, (33 + i, 47, 3)).astype(np.uint8))
        kind = "images" if task == "segment" else ("ant", "bee")[i % 2]
        (folder / split / kind).mkdir(parents=True, exist_ok=True)
        pixels.save(folder / split / kind / f"{i}.png")
        if task == "segment":
            (folder / split / "masks").mkdir(exist_ok=True)
            mask = Image.fromarray(rng.integers(0, 3, (33 + i, 47)).astype(np.uint8))
            mask.save(folder / split / "masks" / f"{i}.png")
    if task == "segment":
        (folder / "classes.txt").write_text("road\ncar\nvoid\n")
    return folder


def trained(folder: Path, task: str) -> tuple[Model, Facts]:
    """A model as training would leave it, moved away from its start."""
    table = read_table(draw(folder / "data", task))
    segment = task == "segment"
    targets = resolve_target(table, (), ("void",) if segment else ())
    head = "deconv" if segment else "gem"
    config = FinetuneConfig(
        str(table.root), "tiny", task=task, backbone=NET, head=head, weights="random",
        ignore=("void",) if segment else (), seed=5,
    )  # fmt: skip
    weights = load_weights(NET, "random")
    model = build_model(NET, head, task, targets.output.logits, None, 0.0, weights, 5)
    spec = InputSpec("native") if segment else InputSpec("crop", 32, 32)
    phases = plan_phases(config, task, tuple(stage.name for stage in model.backbone.info))
    layers = describe_layers(model, phases[0].first, False)
    outcome = Outcome({"iou": 0.0}, 1, [{"epoch": 0}, {"epoch": 1}], 1.0, "cpu", "fp32")
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model.eval(), Facts(config, table, targets, spec, layers, phases, weights.source, outcome, folder)
