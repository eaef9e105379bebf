"""The manifest of a model version: what it takes, what it answers, where it came from."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from surgery.artifact.errors import StoreError
from surgery.artifact.names import NAME

SCHEMA = 1

SizeRule = Literal["crop", "resize", "native"]
Task = Literal["classify", "segment"]
Activation = Literal["softmax", "sigmoid"]
Precision = Literal["fp32", "int8", "fp16"]

_SHA256 = re.compile(r"[0-9a-f]{64}")
_OPTIONAL = "optional"
"""Metadata of a field that manifests written before it lack; such a manifest gets its default."""


@dataclass(frozen=True)
class InputSpec:
    """How a decoded image becomes the network's input.

    Raises:
        StoreError: From `problems()` when a manifest is read; building one never raises.
    """

    size_rule: SizeRule
    """`crop`: a central box, resized. `resize`: stretched. `native`: the image's own size."""
    width: int | None = None
    """Width of the input in pixels; None for `native`."""
    height: int | None = None
    """Height of the input in pixels; None for `native`."""
    crop_share: float = 0.875
    """Side of the central box as a share of the largest box of the target's aspect ratio."""
    colour: Literal["RGB"] = "RGB"
    """Order of the channels."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Mean per channel of images scaled 0–1; applied inside the graph, kept for information."""
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Deviation per channel of images scaled 0–1; applied inside the graph."""
    max_pixels: int = 4_194_304
    """`native` only: larger images are scaled down, aspect kept, until they hold no more."""
    interpolation: Literal["bilinear"] = "bilinear"
    """Pillow's bilinear filter, which averages when it scales down."""

    def problems(self) -> list[str]:
        """Return what is wrong with the values, one line each."""
        found = []
        if self.size_rule != "native" and not (self.width and self.height):
            found.append(f"input.width and input.height are needed for '{self.size_rule}'")
        for name, value in (("width", self.width), ("height", self.height)):
            if value is not None and value < 1:
                found.append(f"input.{name} is {value}; at least 1 pixel is needed")
        if not 0 < self.crop_share <= 1:
            found.append(f"input.crop_share is {self.crop_share}; it lies in (0, 1]")
        if self.max_pixels < 1:
            found.append(f"input.max_pixels is {self.max_pixels}; at least 1 is needed")
        return found


@dataclass(frozen=True)
class OutputSpec:
    """What the logits mean."""

    activation: Activation
    """`softmax`: one logit per class. `sigmoid`: of masks one logit, classes = (rest, the class); of
    images one logit per class, of which several may be present."""
    classes: tuple[str, ...]
    """Names of the classes in the order of the logits."""
    mask_values: tuple[int, ...] = ()
    """`segment`: value of each class in the index mask, same order as `classes`; else empty."""
    rest: str | None = None
    """`segment`: the class that stands for everything else; left out of mean scores."""
    temperature: float = field(default=1.0, metadata={_OPTIONAL: True})
    """`classify`: what the logits are divided by before they become probabilities; it changes no label."""

    @property
    def logits(self) -> int:
        """Number of logits per image or per pixel."""
        return 1 if self.activation == "sigmoid" and self.mask_values else len(self.classes)

    @property
    def multilabel(self) -> bool:
        """Whether an image may have several labels, or none."""
        return self.activation == "sigmoid" and not self.mask_values

    def problems(self, task: str) -> list[str]:
        """Return what is wrong with the values for a task, one line each."""
        found = []
        if len(set(self.classes)) != len(self.classes) or not self.classes:
            found.append("output.classes must be names that differ, one at least")
        if self.activation == "sigmoid" and task == "segment" and len(self.classes) != 2:
            found.append("output.classes must be two names (rest, class) for 'sigmoid' masks")
        if task == "segment" and len(self.mask_values) != len(self.classes):
            found.append("output.mask_values must hold one value per class")
        if task == "classify" and self.mask_values:
            found.append("output.mask_values must be empty for task 'classify'")
        if len(set(self.mask_values)) != len(self.mask_values):
            found.append("output.mask_values must differ from each other")
        if any(not 0 <= value <= 65535 for value in self.mask_values):
            found.append("output.mask_values must lie in 0–65535")
        if self.rest is not None and self.rest not in self.classes:
            found.append(f"output.rest is '{self.rest}', which is not one of output.classes")
        if not 0 < self.temperature < math.inf:
            found.append(f"output.temperature is {self.temperature}; it is a number above 0")
        elif task == "segment" and self.temperature != 1:
            found.append(f"output.temperature is {self.temperature}; masks have none, which is 1")
        return found


@dataclass(frozen=True)
class Manifest:
    """Everything that is known of a model version.

    `version` and `files` are filled in by the store when the version is committed.
    """

    name: str
    task: Task
    created: str
    """Moment of creation, ISO 8601, UTC."""
    surgery_version: str
    input: InputSpec
    output: OutputSpec
    precision: Precision = "fp32"
    """What the version was made in; what runs on a device is `precision_on`."""
    graph: str = "model.onnx"
    """File of the ONNX graph that is served where `serve` says nothing else."""
    serve: dict[str, str] = field(default_factory=lambda: {"cpu": "model.onnx", "cuda": "model.onnx"})
    """Graph file per kind of device."""
    graphs: dict[str, str] = field(default_factory=dict, metadata={_OPTIONAL: True})
    """Graph file of each precision that the version holds; empty where `graph` is all there is."""
    speed: dict[str, Any] = field(default_factory=dict, metadata={_OPTIONAL: True})
    """What each precision took where it was exported, by kind of device: what `serve` was chosen by."""
    backbone: dict[str, Any] = field(default_factory=dict)
    head: dict[str, Any] = field(default_factory=dict)
    strategy: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    """Source, licence and sha256 of the weights; the fate of each layer; the seed."""
    data: dict[str, Any] = field(default_factory=dict)
    """Fingerprint of the data, images per split, classes."""
    scores: dict[str, Any] = field(default_factory=dict)
    parity: dict[str, Any] = field(default_factory=dict)
    parent: str | None = None
    """`name@version` that this version was made from."""
    version: int = 0
    """Number in the store; 0 before it has one."""
    files: dict[str, str] = field(default_factory=dict)
    """sha256 of every file of the version but the manifest itself, by path inside it."""
    schema: int = SCHEMA

    def graph_file(self, device: str) -> str:
        """Return the graph file to run on a kind of device (`cpu`, `cuda`)."""
        return self.serve.get(device, self.graph)

    def precision_on(self, device: str) -> str:
        """Return the precision of the graph that runs on a kind of device (`cpu`, `cuda`)."""
        file = self.graph_file(device)
        return next((name for name, each in self.graphs.items() if each == file), self.precision)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; numbers that are not finite become null.

        Raises:
            StoreError: If a value cannot be written as JSON; the message names its field.
        """
        plain: dict[str, Any] = _plain(dataclasses.asdict(self), "manifest")
        return plain

    @classmethod
    def from_dict(cls, values: object, where: str = "manifest") -> Manifest:
        """Build a manifest from JSON values and check all of it.

        Raises:
            StoreError: If the schema is unknown or fields are missing or wrong; names them all.
        """
        if not isinstance(values, dict):
            raise StoreError(f"{where}: not a JSON object", _DAMAGED)
        if values.get("schema") != SCHEMA:
            raise StoreError(
                f"{where}: schema is {values.get('schema')!r}; this program reads schema {SCHEMA}",
                "If a newer surgery wrote it, update this one; otherwise " + _DAMAGED,
            )
        found: list[str] = []
        manifest = _fit(values, cls, "", found)
        if not found:
            found = manifest.problems()
        if found:
            raise StoreError("\n".join(f"{where}: {line}" for line in found), _DAMAGED)
        return typing.cast(Manifest, manifest)

    @classmethod
    def load(cls, path: Path) -> Manifest:
        """Read a manifest file.

        Raises:
            StoreError: If it cannot be read, is not JSON, or does not hold a whole manifest.
        """
        try:
            values = json.loads(Path(path).read_bytes())
        except OSError as error:
            raise StoreError(f"{path}: cannot be read ({error.strerror})", _DAMAGED) from error
        except (ValueError, RecursionError) as error:
            raise StoreError(f"{path}: not JSON ({error})", _DAMAGED) from error
        return cls.from_dict(values, str(path))

    def save(self, path: Path) -> None:
        """Write the manifest as sorted, indented JSON."""
        text = json.dumps(
            self.to_dict(),
            indent=2,
            sort_keys=True,
            allow_nan=False,
            ensure_ascii=False,
        )
        Path(path).write_text(text + "\n", encoding="utf-8")

    def problems(self) -> list[str]:
        """Return what is wrong with a manifest that stands in the store, one line each."""
        found = [*self.input.problems(), *self.output.problems(self.task)]
        if not NAME.fullmatch(self.name):
            found.append(f"name {self.name!r} is not a model name")
        if self.version < 1:
            found.append(f"version is {self.version}; versions begin at 1")
        for file, digest in self.files.items():
            if not is_inside(file):
                found.append(f"files names {file!r}, which is not a path inside the version")
            if not _SHA256.fullmatch(digest):
                found.append(f"files['{file}'] is not a sha256")
        graphs = [(f"graphs.{name}", file) for name, file in self.graphs.items()]
        for label, file in (("graph", self.graph), *self.serve.items(), *graphs):
            if file not in self.files:
                found.append(f"{label} is served from {file!r}, which files does not name")
        return found


_DAMAGED = "restore the version from a copy, or remove it (`surgery models remove NAME VERSION`)."


def is_inside(file: str) -> bool:
    """Tell whether a relative path is spelled plainly and stays inside its folder."""
    path = PurePosixPath(file)
    plain = str(path) == file and not path.is_absolute() and ".." not in path.parts
    return plain and file != "." and "\\" not in file and file.isprintable()


def _plain(value: Any, where: str) -> Any:
    """Return the JSON form of a value: tuples to lists, scalars of numpy to numbers."""
    if isinstance(value, dict):
        return {str(key): _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, Path):
        return str(value)
    if not isinstance(value, str | int | float | None) and getattr(value, "shape", None) == ():
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, str | int | float):
        return value
    raise StoreError(f"{where}: {type(value).__name__} cannot be written to a manifest")


def _fit(value: Any, kind: Any, where: str, found: list[str]) -> Any:
    """Return `value` as `kind` (dataclass, scalar, Literal, tuple, dict, X | None).

    What does not fit is added to `found`, so that all of it is reported at once.
    """
    if dataclasses.is_dataclass(kind):
        return _fit_fields(value, typing.cast(type, kind), where, found)
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return None if value is None else _fit(value, inner[0], where, found)
    if kind is Any:
        return value
    if origin is Literal and value in inner and isinstance(value, str):
        return value
    if origin is tuple and isinstance(value, list):
        kinds = [inner[0]] * len(value) if inner[-1] is Ellipsis else list(inner)
        if len(kinds) == len(value):
            pairs = enumerate(zip(value, kinds, strict=True))
            return tuple(_fit(item, k, f"{where}[{i}]", found) for i, (item, k) in pairs)
    if origin is dict and isinstance(value, dict):
        return {key: _fit(item, inner[1], f"{where}.{key}", found) for key, item in value.items()}
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if kind in (int, str) and isinstance(value, kind) and not isinstance(value, bool):
        return value
    wanted = kind.__name__ if isinstance(kind, type) and origin is None else str(kind)
    found.append(f"{where} is {value!r:.80}; {wanted.replace('typing.', '')} is wanted")
    return None


def _fit_fields(value: Any, kind: type, where: str, found: list[str]) -> Any:
    """Return the dataclass `kind` from a JSON object; every field must be there that is not optional."""
    if not isinstance(value, dict):
        found.append(f"{where} is {value!r:.80}; an object is wanted")
        return None
    hints, before, fitted = typing.get_type_hints(kind), len(found), {}
    for item in dataclasses.fields(kind):
        path = f"{where}.{item.name}" if where else item.name
        if item.name in value:
            fitted[item.name] = _fit(value[item.name], hints[item.name], path, found)
        elif not item.metadata.get(_OPTIONAL):
            found.append(f"{path} is missing")
    return kind(**fitted) if len(found) == before else None
