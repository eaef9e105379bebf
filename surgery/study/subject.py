"""The models of a study: what a user's word for one means, and whether two can be compared."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError

from surgery.artifact.errors import ConfigError, ModelNotFoundError, StoreError
from surgery.artifact.manifest import Manifest
from surgery.artifact.store import Store, StoredVersion
from surgery.deliver.package import find_stored
from surgery.nets.assemble import Model, build_model
from surgery.nets.restore import initial_model, restore_model
from surgery.nets.weights import LoadedWeights
from surgery.study.modules import State, copy_state
from surgery.study.parts import digest_state
from surgery.train.checkpoint import load_judged, restore_weights
from surgery.train.run import RUN_FILE, runs_root

START = "start"
"""`NAME@VERSION:start` is the model that a version's training began with."""


@dataclass(frozen=True)
class Subject:
    """One model of a study."""

    label: str
    """What it is called: the user's word, with the version's number; RUN/CHECKPOINT of a checkpoint."""
    stored: StoredVersion
    """The version whose manifest says what it takes and answers."""
    model: Model
    """In inference mode. Its weights are the subject's; whoever loads others puts these back."""
    state: State
    """A copy of its weights."""

    @property
    def manifest(self) -> Manifest:
        return self.stored.manifest

    @cached_property
    def digest(self) -> str:
        """Of its weights: others get other results."""
        return digest_state(self.state)


def read_subject(text: str) -> Subject:
    """Return the model that a word stands for.

    Args:
        text: NAME, NAME@VERSION or NAME@ALIAS; with `:start` behind it what that version began with; or a
            file of checkpoints, `runs/NAME-TIME/checkpoints/epoch-….safetensors`, of a finished run.

    Raises:
        ModelNotFoundError: The store does not hold it.
        StoreError: A word or a file that is none.
        WeightsError: The weights that it began with cannot be had.
    """
    if text.endswith(".safetensors"):
        return _from_checkpoint(Path(text))
    ref, colon, part = text.partition(":")
    if colon and part != START:
        raise StoreError(
            f"{text}: behind the colon stands {part!r}; there is '{START}' only",
            f"write {ref} for the finished model, {ref}:{START} for what it began with.",
        )
    stored = Store().resolve(ref)
    if colon:
        return _subject(f"{stored.ref}:{START}", stored, initial_model(stored.manifest))
    return _subject(stored.ref, stored, restore_model(stored))


def read_start(subject: Subject) -> Subject:
    """Return what a subject's training began with; see `read_subject`."""
    return read_subject(f"{subject.stored.ref}:{START}")


def read_random(subject: Subject, seed: int) -> State:
    """Return the weights of a random start of the subject's architecture: a yardstick for distances."""
    manifest = subject.manifest
    model = build_model(
        str(manifest.backbone["name"]),
        str(manifest.head["name"]),
        manifest.task,
        0 if "classifier" in manifest.strategy else manifest.output.logits,
        tuple(manifest.head["stages"]),
        0.0,
        LoadedWeights(None, {}),
        seed,
    )
    return copy_state(model)


def list_checkpoints(subject: Subject) -> list[Path]:
    """Return the checkpoints at the ends of epochs that a version's run has kept, the earliest first.

    Raises:
        ConfigError: The run's folder is gone, or holds one checkpoint only.
    """
    run = str(subject.manifest.strategy.get("run", ""))
    folder = runs_root() / run / "checkpoints"
    found = sorted(folder.glob("epoch-*-step-000000.safetensors")) if run else []
    if len(found) < 2:
        raise ConfigError(
            f"{subject.stored.ref}: its run {folder} holds {len(found)} checkpoint(s), and two are needed",
            "train with --keep-checkpoints all, and point SURGERY_RUNS at the folder of that run.",
        )
    return found


def same_network(first: Subject, second: Subject) -> bool:
    """Tell whether two models have the same layers of the same shapes."""
    return _shapes(first.state, "") == _shapes(second.state, "")


def same_backbone(first: Subject, second: Subject) -> bool:
    """Tell whether two models have the same backbone, cut at the same stage."""
    return _shapes(first.state, "backbone.") == _shapes(second.state, "backbone.")


def answers(subject: Subject) -> bool:
    """Tell whether the weights themselves answer; a classifier of scikit-learn behind them is no weight."""
    return "classifier" not in subject.manifest.strategy


def _subject(label: str, stored: StoredVersion, model: Model) -> Subject:
    return Subject(label, stored, model.eval(), copy_state(model))


def _from_checkpoint(path: Path) -> Subject:
    folder = path.parent.parent
    try:
        name = str(json.loads((folder / RUN_FILE).read_text("utf-8"))["name"])
    except (OSError, ValueError, KeyError) as error:
        raise StoreError(
            f"{path}: {folder} is not the folder of a run",
            "name a file such as runs/NAME-TIME/checkpoints/epoch-0003-step-000000.safetensors.",
        ) from error
    stored = find_stored(Store(), name, folder)
    if stored is None:
        raise ModelNotFoundError(
            f"{path}: the store holds no version that its run made",
            "finish the run: --resume goes on with it.",
        )
    return read_checkpoint(path, stored)


def read_checkpoint(path: Path, stored: StoredVersion) -> Subject:
    """Return the model as it was judged at a checkpoint of a version's run (see `load_judged`).

    Raises:
        StoreError: The file is missing, damaged, or of another model.
    """
    model = initial_model(stored.manifest)
    try:
        restore_weights(model, load_judged(path))
    except (OSError, SafetensorError, RuntimeError, KeyError) as error:
        raise StoreError(f"{path}: {error}", "Take another checkpoint of the run.") from error
    return _subject(f"{path.resolve().parent.parent.name}/{path.stem}", stored, model)


def on_device(subject: Subject, device: torch.device) -> Subject:
    """Return the subject with its model and weights on a device."""
    model = subject.model.to(device)
    return replace(subject, model=model, state=copy_state(model))


def _shapes(state: State, prefix: str) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in state.items() if key.startswith(prefix)}
