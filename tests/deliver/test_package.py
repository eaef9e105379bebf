"""From a trained model to the store: proven and whole, or not there at all."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_run import NET, trained

from surgery.artifact.answer import softmax
from surgery.artifact.errors import ParityError, StoreError, WeightsError
from surgery.artifact.image import read_image
from surgery.artifact.novelty import NOVELTY_FILE
from surgery.artifact.session import answer_image, open_gauge, open_session, open_version
from surgery.artifact.store import Store, StoredVersion
from surgery.data.matching import match_targets
from surgery.data.readers import read_table
from surgery.deliver import package as package_module
from surgery.deliver import parity as parity_module
from surgery.deliver.package import Facts, export_again, package
from surgery.deliver.statistics import fit_gaussian
from surgery.nets.assemble import Model, build_model
from surgery.nets.restore import initial_model, restore_model
from surgery.nets.weights import load_weights
from surgery.train.reporting import Reporter


@pytest.fixture(scope="module", params=["classify", "segment"])
def made(request, tmp_path_factory) -> tuple[Path, Model, Facts]:
    """A store with one version, made once: an export takes seconds."""
    folder = tmp_path_factory.mktemp(request.param)
    model, facts = trained(folder, request.param)
    package(Store(folder / "models"), model, facts, Reporter())
    return folder / "models", model, facts


@pytest.fixture
def stored(made, tmp_path) -> tuple[Store, StoredVersion, Model, Facts]:
    """A copy of that store."""
    folder, model, facts = made
    shutil.copytree(folder, tmp_path / "models")
    store = Store(tmp_path / "models")
    return store, store.resolve("tiny"), model, facts


def test_a_version_is_whole_and_answers_like_the_model(stored):
    store, version, model, facts = stored
    assert (version.version, store.aliases("tiny")) == (1, {"production": 1})
    assert {"model.onnx", "weights.safetensors", "recipe.yaml", "parity.json"} <= set(version.manifest.files)
    store.verify("tiny", 1)
    assert version.manifest.parity["passed"]
    item = facts.table.of("val")[0]
    answer = answer_image(open_session(version.graph(), "cpu"), version.manifest, read_image(item.image))
    with torch.inference_mode():
        image = read_image(item.image) if facts.input.size_rule == "native" else None
        if image is not None:
            logits = model(torch.from_numpy(image.copy())[None])[0][0].numpy()
            assert np.abs(logits - answer.logits).max() < 1e-4
            assert answer.mask.shape == image.shape[:2]


def test_the_stored_weights_are_the_model_and_its_start_can_be_rebuilt(stored):
    _, version, model, facts = stored
    restored = restore_model(version).state_dict()
    assert all(torch.equal(restored[key], value) for key, value in model.state_dict().items())
    targets = facts.targets.output.logits
    weights = load_weights(NET, "random")
    start = build_model(NET, facts.config.head, facts.table.task, targets, None, 0.0, weights, 5)
    rebuilt = initial_model(version.manifest).state_dict()
    assert all(torch.equal(rebuilt[key], value) for key, value in start.state_dict().items())
    assert not all(torch.equal(rebuilt[key], restored[key]) for key in rebuilt)


def test_other_weights_under_the_same_name_are_noticed(stored):
    manifest = stored[1].manifest
    path = stored[1].path / "weights.safetensors"
    weights = {"kind": "file", "asked": str(path), "sha256": "0" * 64}
    changed = dataclasses.replace(manifest, provenance=manifest.provenance | {"weights": weights})
    with pytest.raises(WeightsError, match="sha256"):
        initial_model(changed)


def test_damaged_weights_are_an_error_of_the_store(stored):
    version = stored[1]
    path = version.path / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(StoreError, match=r"weights\.safetensors"):
        restore_model(version)


def test_exporting_again_makes_the_next_version(stored):
    store, version, _, facts = stored
    again = export_again(store, version, facts.table, facts.targets, Reporter())
    assert again.version == 2
    assert again.manifest.parent == "tiny@1"
    assert store.aliases("tiny")["production"] == 1
    assert again.manifest.scores["scores"] == version.manifest.scores["scores"]
    store.verify("tiny", 2)


@pytest.mark.parametrize("task", ["classify", "segment"])
def test_a_graph_that_answers_otherwise_is_not_stored(task, tmp_path, monkeypatch):
    model, facts = trained(tmp_path, task)
    export = package_module.export_onnx

    def spoil(net, *given):
        with torch.no_grad():
            parameter = list(net.head.parameters())[-1]
            parameter += 0.01
            export(net, *given)
            parameter -= 0.01

    monkeypatch.setattr(package_module, "export_onnx", spoil)
    store = Store(tmp_path / "models")
    with pytest.raises(ParityError, match="differ"):
        package(store, model, facts, Reporter())
    assert store.list_names() == []
    assert not [path for path in (tmp_path / "models").rglob("*") if path.suffix == ".onnx"]


def test_equal_logits_with_another_answer_do_not_pass(tmp_path, monkeypatch):
    model, facts = trained(tmp_path, "segment")
    answer = parity_module.answer_image

    def swap(session, manifest, image):
        found = answer(session, manifest, image)
        mask = found.mask.copy()
        mask[:2] = 1 - mask[:2]
        return dataclasses.replace(found, mask=mask)

    monkeypatch.setattr(parity_module, "answer_image", swap)
    with pytest.raises(ParityError, match="where no logits tie"):
        package(Store(tmp_path / "models"), model, facts, Reporter())


def test_a_classifier_answers_at_the_temperature_of_its_manifest(tmp_path, monkeypatch):
    model, facts = trained(tmp_path, "classify")
    judged = []

    def warm(found, output):
        return dataclasses.replace(output, temperature=2.0), {"fitted": False, "note": "given", "n": found.n}

    def check(model, manifest, **more):
        judged.append(manifest.output.temperature)
        return parity_module.check_parity(model, manifest, **more)

    store = Store(tmp_path / "models")
    with monkeypatch.context() as patch:
        patch.setattr(package_module, "calibrate", warm)
        patch.setattr(package_module, "check_parity", check)
        version = package(store, model, facts, Reporter())
    assert judged == [1.0, 2.0]
    assert version.manifest.output.temperature == 2
    image = read_image(facts.table.of("val")[0].image)
    answer = answer_image(open_session(version.graph(), "cpu"), version.manifest, image)
    shares = {row["label"]: row["probability"] for row in answer.labels}
    warm_shares = softmax(answer.logits.astype(float) / 2)
    assert [shares[name] for name in version.manifest.output.classes] == pytest.approx(list(warm_shares))
    # The four images of val decide no temperature, so another export keeps the parent's.
    targets = match_targets(version.manifest, read_table(facts.table.root))
    again = export_again(store, version, facts.table, targets, Reporter())
    assert again.manifest.output == version.manifest.output
    assert "too few" in again.manifest.scores["calibration"]["note"]


def test_calibration_is_measured_on_test_too(tmp_path):
    model, facts = trained(tmp_path, "classify")
    items = [dataclasses.replace(item, split="test") for item in facts.table.of("train")]
    table = dataclasses.replace(facts.table, items=(*facts.table.items, *items))
    stored = package(Store(tmp_path / "models"), model, dataclasses.replace(facts, table=table), Reporter())
    calibration = stored.manifest.scores["calibration"]
    assert (calibration["n"], calibration["test"]["n"]) == (4, 4)
    assert {"ece_before", "ece_after", "nll_before", "nll_after", "bins"} <= set(calibration["test"])
    assert sum(part["before"]["n"] for part in calibration["bins"]) == 4


def test_the_gate_judges_probabilities_at_the_temperature(stored, monkeypatch):
    _, version, model, facts = stored
    if facts.table.task == "segment":
        return
    eager = np.zeros(2, np.float32)
    answer = parity_module.answer_image

    def nudged(session, manifest, image):
        found = answer(session, manifest, image)
        return dataclasses.replace(found, logits=eager + np.array([9e-5, 0], np.float32))

    run = parity_module._run_eager
    monkeypatch.setattr(parity_module, "_run_eager", lambda *given: (eager, run(*given)[1]))
    monkeypatch.setattr(parity_module, "answer_image", nudged)
    images = [item.image for item in facts.table.of("val")]
    for temperature, what in ((1.0, "logits of a batch"), (0.1, "probabilities")):
        output = dataclasses.replace(version.manifest.output, temperature=temperature)
        manifest = dataclasses.replace(version.manifest, output=output)
        with pytest.raises(ParityError, match=what):
            parity_module.check_parity(model, manifest, version.graph(), images)


def test_what_is_written_into_a_draft_belongs_to_the_version(stored):
    store, version, _, facts = stored
    drafts = []

    def write(draft):
        drafts.append(draft)
        (draft.folder / "note.txt").write_text(draft.manifest.name)

    again = export_again(store, version, facts.table, facts.targets, Reporter(), write)
    assert (again.path / "note.txt").read_text() == "tiny"
    assert "note.txt" in again.manifest.files
    assert [result.item for result in drafts[0].val.images] == facts.table.of("val")
    assert drafts[0].manifest.scores == again.manifest.scores


def test_a_version_carries_statistics_of_its_own_graph(stored):
    _, version, _, facts = stored
    assert NOVELTY_FILE in version.manifest.files
    session = open_version(version, "cpu")
    gauge = open_gauge(version, session)

    def ask(split):
        images = [read_image(item.image) for item in facts.table.of(split)]
        return [answer_image(session, version.manifest, image, gauge=gauge) for image in images]

    fitted = fit_gaussian(np.stack([answer.embedding for answer in ask("train")]))
    assert gauge.gaussian.mean == pytest.approx(fitted.mean)
    val = ask("val")
    embeddings = np.stack([answer.embedding for answer in val])
    assert gauge.held_out.calibration == pytest.approx(sorted(fitted.distances(embeddings)), rel=1e-4)
    assert gauge.held_out.reference == pytest.approx(embeddings)
    # Of four images held out the farthest has a novelty of 2 / 5: it is not farther than itself.
    assert sorted(answer.novelty for answer in val) == [0.4, 0.6, 0.8, 1.0]
    image = read_image(facts.table.items[0].image)
    assert answer_image(session, version.manifest, image).novelty is None


def test_another_export_keeps_the_statistics_but_of_graphs_that_are_gone(stored):
    store, version, _, facts = stored
    with np.load(version.path / NOVELTY_FILE) as held:
        arrays = dict(held)
    gone = {name.replace("fp32", "int8"): array for name, array in arrays.items() if "fp32" in name}
    np.savez(version.path / NOVELTY_FILE, **arrays | gone)
    again = export_again(store, version, facts.table, facts.targets, Reporter())
    with np.load(again.path / NOVELTY_FILE) as held:
        assert set(held) == set(arrays)
        assert all(np.array_equal(held[name], array) for name, array in arrays.items())


def test_parity_is_kept_beside_the_graph(stored):
    written = json.loads((stored[1].path / "parity.json").read_text())
    assert written == stored[1].manifest.parity
    assert written["max_difference"] <= written["tolerance"] * max(1, written["largest_logit"])
