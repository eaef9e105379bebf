"""Versions as they are just before they are sealed, of graphs whose answers are known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from surgery.artifact.manifest import InputSpec, Manifest, OutputSpec
from surgery.artifact.session import open_session
from surgery.config import FinetuneConfig, save_recipe
from surgery.data.masks import IndexMask
from surgery.data.table import Item, Table
from surgery.data.targets import IGNORE, TargetSpec
from surgery.deliver.calibrate import calibrate, gather
from surgery.deliver.package import Unsealed
from surgery.deliver.scoring import score_graph

CLASSES = ("<b>red</b>", "green & co", 'blue "sky"')
SCALE = 0.02
"""Logits of an image are its mean red, green and blue times this; of a pixel its red, green and blue."""
HISTORY = [
    {"epoch": 0, "phase": "head", "train_loss": None, "val_loss": 1.2, "seconds": 1.0},
    {"epoch": 1, "phase": "head", "train_loss": 0.9, "val_loss": 0.8, "seconds": 2.0},
    {"epoch": 2, "phase": "all layers", "train_loss": 0.5, "val_loss": 0.6, "seconds": 3.0},
]


def write_graph(path: Path, masks: bool, size: int) -> None:
    """Write a graph whose logits are the first `size` of red, green and blue."""
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "sides"], ["embedding"], keepdims=0),
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Slice", ["planes" if masks else "embedding", "zero", "size", "one"], ["chosen"]),
        helper.make_node("Mul", ["chosen", "scale"], ["logits"]),
    ]
    constants = {
        "sides": np.array([1, 2], np.int64),
        "zero": np.array([0], np.int64),
        "one": np.array([1], np.int64),
        "size": np.array([size], np.int64),
        "scale": np.array(SCALE, np.float32),
    }
    shape = ["n", size, "h", "w"] if masks else ["n", size]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", "h", "w", 3])],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape),
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 3]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


def make_labels(folder: Path, shades: Sequence[tuple[int, int, int]], truths: Sequence[Any]) -> Unsealed:
    """A classifier that answers the strongest colour, and images of one colour with given truths.

    Args:
        folder: Where all of it is written.
        shades: RGB of each image of val.
        truths: Index of its class; or the indices of its classes, and any label may be there.
    """
    several = isinstance(truths[0], tuple)
    items = []
    for split in ("train", "val"):
        for k, (shade, truth) in enumerate(zip(shades, truths, strict=True)):
            path = folder / "data" / split / f"<i>{k:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20, 16), shade).save(path)
            labels = {"label": None, "labels": truth} if several else {"label": truth}
            items.append(Item(path, mask=None, split=split, **labels))  # type: ignore[arg-type]
    table = Table("classify", folder / "data", CLASSES, tuple(items), "a list", "given", multilabel=several)
    output = OutputSpec("sigmoid" if several else "softmax", CLASSES)
    return finish(folder, table, TargetSpec("classify", output, (0, 1, 2)), InputSpec("resize", 20, 16))


def make_masks(folder: Path, images: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> Unsealed:
    """A segmenter that answers the strongest colour of each pixel, and images with given masks."""
    items = []
    for split in ("train", "val"):
        for k, (image, truth) in enumerate(zip(images, truths, strict=True)):
            paths = [folder / "data" / split / kind / f"{k:02d}.png" for kind in ("images", "masks")]
            for path, pixels in zip(paths, (image, truth), strict=True):
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
            items.append(Item(paths[0], None, IndexMask(paths[1]), split))  # type: ignore[arg-type]
    table = Table("segment", folder / "data", CLASSES, tuple(items), "pairs", "given")
    output = OutputSpec("softmax", CLASSES, (0, 1, 2), rest=CLASSES[0])
    targets = TargetSpec("segment", output, (0, 1, 2), (IGNORE,))
    return finish(folder, table, targets, InputSpec("native"))


def finish(folder: Path, table: Table, targets: TargetSpec, spec: InputSpec) -> Unsealed:
    """Score the graph, and write what `package` writes before the report."""
    output, task = targets.output, table.task
    write_graph(folder / "model.onnx", task == "segment", 3)
    manifest = Manifest(
        "tiny", task, "2025-01-31T12:00:00+00:00", "0", spec, output,
        backbone={"name": "net"}, head={"name": "avg"},
        strategy={"name": "frozen", "best_epoch": 2, "epochs": 2, "seconds": 3.5, "device": "cpu",
                  "precision": "fp32", "phases": [{"name": "head"}, {"name": "all layers"}]},
        provenance={
            "seed": 3,
            "weights": {"place": "a wheel", "licence": "MIT", "credit": "them, https://example.org"},
            "layers": {
                "parts": [
                    {"name": "stage1", "layers": 4, "parameters": 1000, "fate": "kept, frozen"},
                    {"name": "stage2", "layers": 4, "parameters": 500, "fate": "kept, retrained"},
                    {"name": "head", "layers": 1, "parameters": 30, "fate": "new"},
                ],
                "totals": {
                    "kept, frozen": {"layers": 4, "parameters": 1000},
                    "kept, retrained": {"layers": 4, "parameters": 500},
                    "new": {"layers": 1, "parameters": 30},
                },
                "trained": 530,
            },
        },
        data={"fingerprint": table.fingerprint(), "ignored": []},
        parity={"images": 2, "max_difference": 1e-6, "largest_logit": 5.0, "tolerance": 1e-4,
                "answers_equal": 1.0, "ties": 0},
    )  # fmt: skip
    session = open_session(folder / "model.onnx", "cpu")
    val = score_graph(session, manifest, table.of("val"), targets, lambda done, total: None)
    scores: dict[str, Any] = {"split": "val", "before": dict.fromkeys(val.scores.scores, 0.25)}
    scores |= val.scores.to_dict()
    if task == "classify":
        output, scores["calibration"] = calibrate(gather(val.images, output), output)
    history = [row | {"val": val.scores.scores} for row in HISTORY]
    (folder / "history.json").write_text(json.dumps({"epochs": history}))
    save_recipe(FinetuneConfig(str(table.root), "tiny", classes=CLASSES), folder / "recipe.yaml")
    replaced = {**manifest.__dict__, "output": output, "scores": scores}
    return Unsealed(folder, Manifest(**replaced), table, targets, val)
