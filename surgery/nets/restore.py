"""Models rebuilt from the store: as they ended, and as they began."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from surgery.artifact.errors import StoreError, WeightsError
from surgery.artifact.manifest import Manifest
from surgery.artifact.store import Store, StoredVersion
from surgery.nets.assemble import Model, build_model
from surgery.nets.weights import load_weights

WEIGHTS_FILE = "weights.safetensors"


def restore_model(stored: StoredVersion) -> Model:
    """Return a version's model in torch, with the weights it was stored with.

    Raises:
        StoreError: If the weights are missing or do not fit the manifest.
    """
    model = _build(stored.manifest, "random")
    path = Path(stored.path) / WEIGHTS_FILE
    try:
        model.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise StoreError(f"{path}: {error}", "Restore the version from a copy.") from error
    return model.eval()


def initial_model(manifest: Manifest) -> Model:
    """Return the model a version's training began with, bit for bit.

    An adapted version began as its parent, which must still be in the store.

    Raises:
        ModelNotFoundError: If that parent is gone.
        WeightsError: If the weights it began with cannot be had, or are no longer the same.
    """
    if "adaptation" in manifest.provenance:
        return restore_model(Store().resolve(str(manifest.parent)))
    return _build(manifest, manifest.provenance["weights"].get("asked", "imagenet"))


def _build(manifest: Manifest, weights: str) -> Model:
    seed = int(manifest.provenance["seed"])
    backbone = str(manifest.backbone["name"])
    loaded = load_weights(backbone, weights)
    then = manifest.provenance["weights"].get("sha256")
    if weights != "random" and loaded.source.get("sha256") != then:
        raise WeightsError(
            f"{manifest.name}@{manifest.version} began with weights of sha256 {then}; "
            f"{weights} is now {loaded.source.get('sha256')}",
            "Put the old weights file back and name it with --weights FILE.",
        )
    model = build_model(
        backbone,
        str(manifest.head["name"]),
        manifest.task,
        0 if "classifier" in manifest.strategy else manifest.output.logits,
        tuple(manifest.head["stages"]),
        float(manifest.head["dropout"]),
        loaded,
        seed,
    )
    model.test_flips = bool(manifest.head.get("test_flips", False))
    return model
