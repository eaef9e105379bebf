"""int8 and fp16: the next version, judged by what it loses, its sensitive layers found by measuring."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from tiny_graphs import SIDE, store_tiny

from surgery.artifact.errors import ConfigError, DataError
from surgery.artifact.manifest import Manifest
from surgery.artifact.session import open_session, open_version
from surgery.artifact.store import Store
from surgery.deliver import precision as module
from surgery.deliver import sensitivity
from surgery.deliver.layers import read_parts, spell_layer
from surgery.deliver.precision import export_precision
from surgery.deliver.sensitivity import _least
from surgery.deliver.speed import choose_served
from surgery.recipes import models
from surgery.train.reporting import Reporter

IMAGES = np.random.default_rng(0).integers(80, 171, (3, SIDE, SIDE, 3), dtype=np.uint8)  # within the ranges


def export(made, precision="int8", tolerance=0.5, version=None):
    store, stored, table, targets = made
    return export_precision(store, version or stored, precision, table, targets, tolerance, Reporter())


def kinds(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def weight_types(path: Path) -> dict[str, int]:
    return {each.name: each.data_type for each in onnx.load(path).graph.initializer}


@pytest.mark.parametrize("task", ["classify", "segment"])
def test_int8_is_the_next_version(task, tmp_path):
    made = store_tiny(tmp_path, task)
    store, parent, _, _ = made
    new = export(made)
    manifest = new.manifest
    assert (new.version, manifest.parent, manifest.precision) == (2, "tiny@1", "int8")
    assert store.aliases("tiny") == {"production": 1}
    assert manifest.graphs == {"fp32": "model.onnx", "int8": "model.int8.onnx"}
    assert manifest.files["model.onnx"] == parent.manifest.files["model.onnx"]
    assert Manifest.from_dict(json.loads(json.dumps(manifest.to_dict()))) == manifest
    store.verify("tiny", 2)
    facts = manifest.parity["precisions"]["int8"]
    assert json.loads((new.path / "parity.json").read_text())["precisions"]["int8"]["passed"]
    assert (facts["passed"], facts["loss_points"], facts["answers_equal"]) == (True, 0, 1)
    assert facts["metric"] == ("iou" if task == "segment" else "accuracy")
    assert (facts["calibrated_on"], facts["held_back"], facts["images"]) == (16, 8, 8)
    assert manifest.scores["scores"] == manifest.scores["fp32"]["scores"]
    assert set(manifest.speed["cpu"]["milliseconds"]) == {"fp32", "int8"}
    # What gives the logits of a mask stays in float; of a classifier all that follows the last map does.
    assert facts["left_in_float"] == (["output"] if task == "segment" else [])
    path = new.path / "model.int8.onnx"
    assert {"QuantizeLinear", "DequantizeLinear"} <= set(kinds(path))
    assert weight_types(path)["conv2.weight_quantized"] == onnx.TensorProto.INT8
    assert weight_types(path)["output.weight" if task == "segment" else "linear.weight"] == 1
    one, other = (open_session(new.path / file, "cpu") for file in manifest.graphs.values())
    for exact, coarse in zip(one.run(IMAGES), other.run(IMAGES), strict=True):
        assert coarse.dtype == np.float32
        difference = np.abs(exact - coarse).max()
        assert 0 < difference < 0.02 * max(1, np.abs(exact).max())


def test_layers_that_hurt_are_found_and_left_in_float(tmp_path):
    new = export(store_tiny(tmp_path, "classify", outlier=1000.0))
    facts = new.manifest.parity["precisions"]["int8"]
    assert sorted(facts["left_in_float"]) == ["conv2", "conv3"]
    assert facts["layers"] == 4
    assert facts["passed"]
    types = weight_types(new.path / "model.int8.onnx")
    assert {"conv1.weight_quantized", "conv4.weight_quantized", "conv2.weight", "conv3.weight"} <= set(types)


def test_within_the_tolerance_no_layer_is_left_out(tmp_path):
    new = export(store_tiny(tmp_path, "classify", outlier=1000.0), tolerance=100)
    facts = new.manifest.parity["precisions"]["int8"]
    assert facts["left_in_float"] == []
    assert (facts["loss_points"], facts["passed"]) == (50, True)


@pytest.fixture
def careless(tmp_path, monkeypatch):
    """A version whose int8 loses half of its accuracy, as nothing was left in float."""
    made = store_tiny(tmp_path, "classify", outlier=1000.0)
    monkeypatch.setattr(sensitivity, "loss_points", lambda *given: 0.0)
    return made, export(made)


def test_a_version_past_its_tolerance_is_not_promoted(careless, monkeypatch, capsys):
    (store, _, _, _), new = careless
    monkeypatch.setenv("SURGERY_MODELS", str(store.root))
    facts = new.manifest.parity["precisions"]["int8"]
    assert (facts["loss_points"], facts["tolerance_points"], facts["passed"]) == (50, 0.5, False)
    assert new.manifest.scores["scores"]["accuracy"] == 0.5
    with pytest.raises(ConfigError, match=r"50\.00 points are lost, the tolerance is 0\.5") as raised:
        models.promote("tiny", 2)
    assert raised.value.exit_code == 2
    assert "--tolerance" in raised.value.hint
    assert store.aliases("tiny") == {"production": 1}
    models.promote("tiny", 2, as_json=True, anyway=True)
    assert json.loads(capsys.readouterr().out)["aliases"] == {"previous": 1, "production": 2}


def test_what_lost_too_much_is_not_served_by_a_later_version(careless):
    made, lossy = careless
    later = export(made, "fp16", version=lossy)
    assert "model.int8.onnx" in later.manifest.files
    assert set(later.manifest.speed["cpu"]["milliseconds"]) == {"fp32", "fp16"}
    assert "model.int8.onnx" not in later.manifest.serve.values()


def test_fp16_keeps_float32_where_squares_would_leave_its_range(tmp_path):
    made = store_tiny(tmp_path, "classify", loud=1000.0)  # squares of 600 and more
    new = export(made, "fp16")
    facts = new.manifest.parity["precisions"]["fp16"]
    assert (facts["passed"], facts["loss_points"]) == (True, 0)
    types = weight_types(new.path / "model.fp16.onnx")
    assert {types[f"conv{k}.weight/fp16"] for k in range(1, 5)} == {onnx.TensorProto.FLOAT16}
    assert types["linear.weight"] == types["scale"] == onnx.TensorProto.FLOAT
    one, other = (open_session(new.path / file, "cpu") for file in new.manifest.graphs.values())
    for exact, coarse in zip(one.run_explained(IMAGES), other.run_explained(IMAGES), strict=True):
        assert coarse.dtype == np.float32
        np.testing.assert_allclose(coarse, exact, rtol=0.01, atol=0.01)
    assert new.manifest.serve["cuda"] == "model.fp16.onnx" or "cuda" in new.manifest.speed


def test_every_precision_starts_from_fp32(tmp_path):
    made = store_tiny(tmp_path, "segment")
    first = export(made)
    again = export(made, version=first)
    assert again.manifest.files["model.int8.onnx"] == first.manifest.files["model.int8.onnx"]
    both = export(made, "fp16", version=again)
    assert both.version == 4
    assert set(both.manifest.graphs) == {"fp32", "int8", "fp16"}
    assert set(both.manifest.parity["precisions"]) == {"int8", "fp16"}
    assert both.manifest.graphs["int8"] in both.manifest.files


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
def test_what_is_stopped_leaves_nothing(stop, tmp_path, monkeypatch):
    made = store_tiny(tmp_path, "classify")

    def halt(*given):
        (given[-1]).write_bytes(b"half")
        raise stop

    monkeypatch.setattr(module, "write_int8", halt)
    with pytest.raises(stop):
        export(made)
    assert made[0].list_versions("tiny") == [1]
    assert not list(tmp_path.rglob("model.int8.onnx"))


def test_val_has_no_part_in_the_choice(tmp_path, monkeypatch):
    store, stored, table, targets = store_tiny(tmp_path, "classify", outlier=1000.0)
    seen = set()
    choose = sensitivity.choose_layers

    def watch(parts, ranges, layers, trial, *more):
        seen.update(item.split for item in trial.held)
        return choose(parts, ranges, layers, trial, *more)

    monkeypatch.setattr("surgery.deliver.int8.choose_layers", watch)
    export((store, stored, table, targets))
    assert seen == {"train"}


def test_what_cannot_be_judged_is_refused(tmp_path):
    store, stored, table, targets = store_tiny(tmp_path, "classify")
    none = replace(table, items=tuple(item for item in table.items if item.split == "train"))
    with pytest.raises(DataError, match="val"):
        export((store, stored, none, targets))
    none = replace(table, items=tuple(item for item in table.items if item.split == "val"))
    with pytest.raises(DataError, match="training images"):
        export((store, stored, none, targets))
    with pytest.raises(ConfigError, match="tolerance"):
        export((store, stored, table, targets), tolerance=-1)


def test_the_fewest_are_left_out():
    asked = []

    def fits(count):
        asked.append(count)
        return count >= 11

    assert _least(fits, 40) == 11
    assert asked == [1, 2, 4, 8, 16, 12, 10, 11]
    assert _least(lambda count: False, 5) is None
    assert _least(lambda count: count == 5, 5) == 5


def test_the_fastest_is_served_and_elsewhere_what_it_is_for():
    def timed(**times):
        return {"milliseconds": times, "runs": 3}

    slow = {"cpu": timed(fp32=10.0, int8=9.8)}
    assert choose_served(slow, ["fp32", "int8"]) == {"cpu": "fp32", "cuda": "fp32"}  # 2 % is noise
    fast = {"cpu": timed(fp32=10.0, int8=4.0, fp16=30.0)}
    assert choose_served(fast, ["fp32", "int8", "fp16"]) == {"cpu": "int8", "cuda": "fp16"}
    assert choose_served(fast, ["fp32", "fp16"]) == {"cpu": "fp32", "cuda": "fp16"}
    both = fast | {"cuda": timed(fp32=2.0, int8=3.0, fp16=1.0)}
    assert choose_served(both, ["fp32", "int8", "fp16"])["cuda"] == "fp16"


def test_parts_of_a_graph(tmp_path):
    _, stored, _, _ = store_tiny(tmp_path, "classify")
    parts = read_parts(stored.graph(), "classify")
    assert [spell_layer(parts, name) for name in parts.layers] == ["conv1", "conv2", "conv3", "conv4"]
    outside = {node.op_type for node in parts.model.graph.node if node.name not in parts.inside}
    assert outside == {"Transpose", "Cast", "Mul", "ReduceMean", "Gemm", "Conv"}  # Conv: the map's


def test_a_version_says_what_runs(tmp_path):
    made = store_tiny(tmp_path, "segment")
    new = export(made)
    serve = {"cpu": "model.int8.onnx", "cuda": "model.onnx"}
    manifest = replace(new.manifest, serve=serve)
    assert (manifest.precision_on("cpu"), manifest.precision_on("cuda")) == ("int8", "fp32")
    session = open_version(replace(new, manifest=manifest), "cpu")
    assert session.path.name == "model.int8.onnx"


def test_the_command_prints_one_object(tmp_path, monkeypatch, capsys):
    from surgery.recipes.export import export as run

    store, _, table, _ = store_tiny(tmp_path, "segment")
    monkeypatch.setenv("SURGERY_MODELS", str(store.root))
    monkeypatch.setattr("surgery.report.page.write_report", lambda version, report: None)
    run("tiny", "int8", str(table.root), 0.5, True)
    out, err = capsys.readouterr()
    facts = json.loads(out)
    assert (facts["model"], facts["version"], facts["parent"], facts["precision"]) == (
        "tiny",
        2,
        "tiny@1",
        "int8",
    )
    assert set(facts["speed"]["cpu"]["milliseconds"]) == {"fp32", "int8"}
    assert facts["serve"]["cuda"] == "fp32" or "cuda" in facts["speed"]
    assert facts["parity"]["precisions"]["int8"]["passed"]
    assert "next: surgery models promote tiny 2" in err
    models.show("tiny@2")
    shown = "".join(capsys.readouterr().out.split())
    assert "cpu:" in shown
    with pytest.raises(ConfigError, match="fp32, int8, fp16"):
        run("tiny", "int4", None, 0.5, True)
    assert Store().list_versions("tiny") == [1, 2]
