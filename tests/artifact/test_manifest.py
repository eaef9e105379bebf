"""A manifest comes back as it was written, and says everything that is wrong with it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_graph import make_manifest

from surgery.artifact.errors import StoreError
from surgery.artifact.manifest import InputSpec, Manifest, OutputSpec, is_inside


def stored() -> Manifest:
    return replace(make_manifest(), version=3, files={"model.onnx": "0" * 64})


def test_comes_back_as_written(tmp_path: Path) -> None:
    manifest = replace(stored(), parent="cars@2", input=InputSpec("crop", 224, 200, 0.9))
    manifest.save(tmp_path / "manifest.json")
    assert Manifest.load(tmp_path / "manifest.json") == manifest
    text = (tmp_path / "manifest.json").read_text()
    assert list(json.loads(text)) == sorted(json.loads(text))
    assert '\n  "backbone"' in text


def test_numbers_become_plain_json() -> None:
    scores = {"f": np.float32(0.5), "i": np.int64(3), "nan": float("nan"), "p": Path("a/b")}
    values = replace(stored(), scores=scores).to_dict()["scores"]
    assert json.dumps(values, allow_nan=False) == '{"f": 0.5, "i": 3, "nan": null, "p": "a/b"}'


def test_what_json_cannot_hold_is_named() -> None:
    with pytest.raises(StoreError, match=r"manifest\.scores\.curve"):
        replace(stored(), scores={"curve": np.zeros(3)}).to_dict()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("name", 3),
        ("name", "../../etc"),
        ("version", 0),
        ("version", True),
        ("version", "3"),
        ("task", "detect"),
        ("precision", ["fp32"]),
        ("input.size_rule", "tile"),
        ("input.mean", [0.5, 0.5]),
        ("input.width", 1.5),
        ("input.max_pixels", 0),
        ("input.crop_share", 0),
        ("output.classes", "abc"),
        ("output.classes", []),
        ("output.mask_values", [0, 1]),
        ("output.mask_values", [0, 1, 1]),
        ("output.mask_values", [0, 1, 65536]),
        ("output.rest", "lake"),
        ("output.activation", "relu"),
        ("output.temperature", "1"),
        ("output.temperature", 2.0),
        ("files", {"model.onnx": "12"}),
        ("files", {"model.onnx": "0" * 64, "../x": "0" * 64}),
        ("graph", "other.onnx"),
        ("serve", {"cpu": "/etc/passwd"}),
        ("graphs", {"int8": "model.int8.onnx"}),
        ("speed", 3),
        ("parent", 2),
        ("scores", [1]),
    ],
)
def test_wrong_field_is_named(path: str, value: Any) -> None:
    values = stored().to_dict()
    *outer, field = path.split(".")
    place = values[outer[0]] if outer else values
    place[field] = value
    with pytest.raises(StoreError, match=path.replace(".", r"\.")):
        Manifest.from_dict(values)


@pytest.mark.parametrize("field", sorted({*stored().to_dict()} - {"graphs", "speed"}))
def test_missing_field_is_named(field: str) -> None:
    values = stored().to_dict()
    del values[field]
    with pytest.raises(StoreError, match=field):
        Manifest.from_dict(values)


def test_a_manifest_from_before_the_temperature_is_read() -> None:
    values = stored().to_dict()
    del values["output"]["temperature"]
    assert Manifest.from_dict(values) == stored()
    assert stored().output.temperature == 1
    for field in ("activation", "classes", "mask_values", "rest"):
        broken = {**values, "output": {k: v for k, v in values["output"].items() if k != field}}
        with pytest.raises(StoreError, match=rf"output\.{field} is missing"):
            Manifest.from_dict(broken)


def test_the_precision_is_that_of_the_graph_that_runs() -> None:
    graphs = {"fp32": "model.onnx", "int8": "model.int8.onnx"}
    serve = {"cpu": "model.int8.onnx", "cuda": "model.onnx"}
    manifest = replace(stored(), precision="int8", graphs=graphs, serve=serve)
    assert (manifest.precision_on("cpu"), manifest.precision_on("cuda")) == ("int8", "fp32")
    assert replace(manifest, serve={"cpu": "model.onnx"}).precision_on("cpu") == "fp32"
    assert stored().precision_on("cpu") == "fp32"


def test_a_manifest_from_before_the_precisions_is_read() -> None:
    values = stored().to_dict()
    del values["graphs"], values["speed"]
    assert Manifest.from_dict(values) == stored()


def test_a_classifier_keeps_its_temperature(tmp_path: Path) -> None:
    labels = replace(make_manifest(task="classify"), version=3, files={"model.onnx": "0" * 64})
    manifest = replace(labels, output=replace(labels.output, temperature=1.75))
    manifest.save(tmp_path / "manifest.json")
    assert Manifest.load(tmp_path / "manifest.json").output.temperature == 1.75
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        values = manifest.to_dict()
        values["output"]["temperature"] = wrong
        with pytest.raises(StoreError, match=r"output\.temperature is .*; it is a number above 0"):
            Manifest.from_dict(values)


def test_all_mistakes_are_told_at_once() -> None:
    values = stored().to_dict()
    del values["graph"], values["input"]["std"]
    values["task"] = 5
    with pytest.raises(StoreError) as caught:
        Manifest.from_dict(values)
    assert len(caught.value.message.splitlines()) == 3


@pytest.mark.parametrize("schema", [0, 2, "1", None, True])
def test_unknown_schema_is_refused(schema: Any) -> None:
    with pytest.raises(StoreError, match="schema"):
        Manifest.from_dict({**stored().to_dict(), "schema": schema})


def test_fields_of_a_later_program_are_left_alone() -> None:
    assert Manifest.from_dict({**stored().to_dict(), "later": 1}) == stored()


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "\ud800", "[" * 100_000])
def test_what_is_no_manifest_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "manifest.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(StoreError, match=r"manifest\.json"):
        Manifest.load(path)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"manifest\.json"):
        Manifest.load(tmp_path / "manifest.json")


def test_one_class_mask_has_one_logit() -> None:
    output = OutputSpec("sigmoid", ("rest", "car"), (0, 1), "rest")
    assert output.logits == 1
    assert output.problems("segment") == []
    assert output.problems("classify")


@pytest.mark.parametrize("file", ["a", "a/b.png", "..a", "a b"])
def test_plain_paths_are_inside(file: str) -> None:
    assert is_inside(file)


@pytest.mark.parametrize(
    "file", ["", ".", "..", "../a", "a/../b", "/a", "a//b", "./a", "a/", "a\\b", "a\0", "a\n"]
)
def test_other_paths_are_not(file: str) -> None:
    assert not is_inside(file)
