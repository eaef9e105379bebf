"""`surgery models` prints what the store holds and changes what it says it changes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from surgery.artifact.errors import ModelNotFoundError, StoreError
from surgery.artifact.manifest import InputSpec, Manifest, OutputSpec
from surgery.artifact.store import Store
from surgery.recipes.models import list_models, promote, remove, rollback, show

MANIFEST = Manifest(
    name="cars",
    task="segment",
    created="2025-01-31T12:00:00+00:00",
    surgery_version="0.1.0",
    input=InputSpec("native"),
    output=OutputSpec("sigmoid", ("rest", "car"), (0, 1), "rest"),
    backbone={"name": "vgg16"},
    head={"name": "deconv"},
    strategy={"name": "frozen"},
    provenance={
        "weights": {"place": "a wheel", "licence": "MIT"},
        "layers": {"parts": [{"name": "stage1", "fate": "kept, frozen"}]},
    },
    scores={"split": "val", "n": 3, "scores": {"dice": 0.9, "iou": 0.8125, "iou_per_image": None}},
)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("SURGERY_MODELS", str(tmp_path / "models"))
    return Store()


def add(store: Store, name: str = "cars") -> None:
    with store.stage(name) as staging:
        (staging.path / "model.onnx").write_bytes(b"x" * 2**20)
        staging.commit(replace(MANIFEST, name=name))


def test_empty_store_says_what_to_do(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    list_models()
    out, err = capsys.readouterr()
    assert out == ""
    assert "surgery finetune" in err
    list_models(True)
    out, err = capsys.readouterr()
    assert json.loads(out) == {"store": str(store.root), "versions": [], "damaged": {}}
    assert err == ""


def test_list(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    add(store), add(store), add(store, "boats")
    list_models(True)
    out, err = capsys.readouterr()
    rows = json.loads(out)["versions"]
    assert err == ""
    assert [(row["model"], row["version"], row["aliases"]) for row in rows] == [
        ("boats", 1, ["production"]),
        ("cars", 1, ["production"]),
        ("cars", 2, []),
    ]
    assert rows[0]["scores"] == {"dice": 0.9, "iou": 0.8125}
    assert rows[0]["bytes"] == 2**20
    list_models()
    line = next(line for line in capsys.readouterr().out.splitlines() if "cars@1" in line)
    for word in ("production", "segment", "vgg16", "deconv", "frozen", "fp32", "0.812", "1.0", "2025-01-31"):
        assert word in line


def test_damage_is_listed(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    add(store)
    (store.root / "cars" / "1" / "model.onnx").unlink()
    list_models(True)
    assert "model.onnx" in json.loads(capsys.readouterr().out)["damaged"]["cars@1"]
    list_models()
    assert "damaged: cars@1" in capsys.readouterr().err


def test_show(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    add(store)
    show("cars")
    out = capsys.readouterr().out
    for words in ("cars@1 (production)", "rest, car", "a wheel", "MIT", "stage1: kept, frozen", "iou 0.8125"):
        assert words in out
    show("cars@production", True)
    values = json.loads(capsys.readouterr().out)
    assert values["model"] == "cars"
    assert values["aliases"] == ["production"]
    assert Manifest.from_dict(values) == store.resolve("cars").manifest


def test_show_says_where_the_report_is(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    add(store)
    show("cars")
    assert "report.html" not in capsys.readouterr().out
    calibration = {"ece_before": 0.125, "ece_after": 0.0625}
    output = OutputSpec("softmax", ("a", "b"), temperature=1.5)
    manifest = replace(MANIFEST, task="classify", output=output, scores={"calibration": calibration})
    with store.stage("cars") as staging:
        (staging.path / "model.onnx").write_bytes(b"x")
        (staging.path / "report.html").write_text("<p>")
        staging.commit(manifest)
    show("cars@2")
    out = "".join(capsys.readouterr().out.split())
    assert "/cars/2/report.html" in out
    assert "temperature1.5;error0.1250without,0.0625withit" in out


def test_show_checks_the_files(store: Store) -> None:
    add(store)
    (store.root / "cars" / "1" / "model.onnx").write_bytes(b"y")
    with pytest.raises(StoreError, match="altered"):
        show("cars")
    with pytest.raises(ModelNotFoundError):
        show("boats")


def test_promote_and_back(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    add(store), add(store)
    promote("cars", 2, True)
    values = json.loads(capsys.readouterr().out)
    assert values == {"model": "cars", "version": 2, "aliases": {"production": 2, "previous": 1}}
    rollback("cars")
    out, err = capsys.readouterr()
    assert out == "cars@1 is production again\n"
    assert "next: surgery models rollback cars" in err
    assert store.resolve("cars").version == 1


def test_remove(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    add(store), add(store)
    with pytest.raises(StoreError, match="production"):
        remove("cars", 1)
    remove("cars", 2, True)
    values = {"model": "cars", "removed": 2, "aliases": {"production": 1}}
    assert json.loads(capsys.readouterr().out) == values
    assert store.list_versions("cars") == [1]
