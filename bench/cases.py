"""What the benchmarks of serving serve: models, made or from a store, and images, made or from a folder."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from surgery.artifact.image import decode_image
from surgery.artifact.manifest import InputSpec, Manifest, OutputSpec
from surgery.artifact.store import Store, StoredVersion

SIZES = {"classify": (500, 375), "segment": (480, 360)}
"""Width and height of made images: those of the tutorial's ants and bees, and of CamVid."""
IMAGES = 16
PRECISIONS = ("fp32", "int8")


@dataclass(frozen=True)
class Case:
    """One version and the images that it is asked about."""

    stored: StoredVersion
    images: Sequence[bytes]

    @property
    def what(self) -> str:
        manifest = self.stored.manifest
        return f"{manifest.backbone.get('name', manifest.name)} {manifest.precision}"

    @property
    def task(self) -> str:
        return self.stored.manifest.task

    @property
    def graph_mib(self) -> float:
        return self.stored.graph("cpu").stat().st_size / 2**20

    def facts(self) -> dict[str, Any]:
        """Return what a peer has to know of the model."""
        manifest = self.stored.manifest
        graph = str(self.stored.graph("cpu").resolve())
        return {**asdict(manifest.input), **asdict(manifest.output), "task": manifest.task, "graph": graph}


def read_cases(store: Store, names: Sequence[str], folders: Sequence[Path]) -> list[Case]:
    """Return the newest version of each name and precision.

    Args:
        store: Where they are.
        names: The models.
        folders: A folder of images for each name, or one for all, or none: they are made.
    """
    cases = []
    for number, name in enumerate(names):
        newest: dict[str, StoredVersion] = {}
        for version in store.list_versions(name):
            stored = store.resolve(f"{name}@{version}")
            newest[stored.manifest.precision] = stored
        for precision in PRECISIONS:
            if precision in newest:
                manifest = newest[precision].manifest
                if manifest.task == "segment" and manifest.input.size_rule != "native":
                    sys.exit(f"{name}: the peers answer masks of images in their own size only")
                folder = folders[number % len(folders)] if folders else None
                cases.append(Case(newest[precision], read_images(folder, manifest.task)))
    return cases


def read_images(folder: Path | None, task: str) -> list[bytes]:
    """Return some images of a folder, evenly spread, or made ones."""
    if folder is None:
        return [make_photo(seed, SIZES[task]) for seed in range(IMAGES)]
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not files:
        sys.exit(f"{folder}: no .jpg or .png in it")
    return [path.read_bytes() for path in files[:: max(1, len(files) // IMAGES)][:IMAGES]]


def make_photo(seed: int, size: tuple[int, int]) -> bytes:
    """Return a JPEG that weighs what a photograph does: noise at every scale, the larger the stronger."""
    chance = np.random.default_rng(seed)
    total = np.full((size[1], size[0], 3), 128.0)
    for side in (2, 4, 8, 16, 32, 64, 128):
        grid = chance.uniform(-1, 1, (side, side, 3)) * 160 / np.sqrt(side)  # (side, side, 3)
        for channel in range(3):
            plane = Image.fromarray(grid[:, :, channel].astype(np.float32))
            total[:, :, channel] += np.asarray(plane.resize(size, Image.Resampling.BICUBIC))
    file = io.BytesIO()
    Image.fromarray(total.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def make_models(store: Store) -> list[str]:
    """Put a classifier and a model of masks into a store, with random weights; return their names."""
    labels = OutputSpec("softmax", ("ants", "bees"))
    add_model(store, "ants", "tf_efficientnet_lite0", "avg", InputSpec("crop", 224, 224), labels)
    masks = OutputSpec("sigmoid", ("rest", "car"), (0, 1), "rest")
    add_model(store, "cars", "vgg16", "deconv", InputSpec("native"), masks)
    return ["ants", "cars"]


def add_model(
    store: Store, name: str, backbone: str, head: str, input: InputSpec, output: OutputSpec
) -> StoredVersion:
    """Export a network whose weights are drawn at random: they take the time that trained ones do."""
    from surgery.deliver.export import export_onnx
    from surgery.nets.assemble import build_model
    from surgery.nets.weights import load_weights

    task = "segment" if output.mask_values else "classify"
    weights = load_weights(backbone, "random")
    model = build_model(backbone, head, task, output.logits, None, 0.0, weights, 0)
    manifest = Manifest(
        name=name,
        task=task,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        surgery_version="0",
        input=input,
        output=output,
        backbone={"name": backbone},
        head={"name": head},
    )
    with store.stage(name) as staging:
        export_onnx(model, task, input, staging.path / manifest.graph)
        return staging.commit(manifest)


def isolate(stored: StoredVersion, root: Path) -> Store:
    """Return a store of this version alone, in production."""
    store = Store(root)
    shutil.copytree(stored.path, root / stored.name / str(stored.version))
    aliases = {"production": stored.version}
    (root / stored.name / "aliases.json").write_text(json.dumps(aliases), "utf-8")
    return store


def is_same(case: Case, reference: Any, body: bytes) -> bool:
    """Return whether an answer is the reference but for rounding: labels, or the PNG of a mask."""
    if case.task == "segment":
        mask = decode_image(body)[:, :, 0]
        wanted = decode_image(reference)[:, :, 0]
        return mask.shape == wanted.shape and float((mask != wanted).mean()) <= 1e-3  # ties
    labels = json.loads(body)["labels"]
    found = {row["label"]: row["probability"] for row in labels}
    wanted = {row["label"]: row["probability"] for row in reference}
    close = found.keys() == wanted.keys() and all(abs(found[k] - wanted[k]) <= 1e-4 for k in wanted)
    return close and labels[0]["probability"] == max(found.values())
