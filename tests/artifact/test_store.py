"""Versions get numbers, aliases name them, and what is not there is said with what is."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_graph import Add, make_manifest, write_graph

from surgery.artifact.errors import ModelNotFoundError, StoreError
from surgery.artifact.manifest import Manifest
from surgery.artifact.store import Ref, Store, StoredVersion, check_name, parse_ref


def test_first_version_becomes_production(store: Store, add: Add) -> None:
    stored = add()
    assert (stored.name, stored.version, stored.ref) == ("cars", 1, "cars@1")
    assert store.aliases("cars") == {"production": 1}
    add()
    assert store.aliases("cars") == {"production": 1}
    assert store.list_names() == ["cars"]
    assert store.list_versions("cars") == [1, 2]


def test_version_on_disk_is_what_was_committed(store: Store, add: Add) -> None:
    stored = add()
    assert stored.path == store.root / "cars" / "1"
    assert store.resolve("cars@1") == stored
    assert Manifest.load(stored.path / "manifest.json") == stored.manifest
    assert stored.manifest.version == 1
    assert set(stored.manifest.files) == {"model.onnx", "previews/0.png"}
    assert stored.manifest.files["previews/0.png"] == hashlib.sha256(b"a picture").hexdigest()
    assert stored.sha256() == hashlib.sha256(stored.graph().read_bytes()).hexdigest()
    assert not [path for path in (store.root / "cars").iterdir() if path.name.startswith(".")]


def test_each_device_has_its_graph(store: Store) -> None:
    with store.stage("cars") as staging:
        write_graph(staging.path / "model.onnx")
        (staging.path / "model.int8.onnx").write_bytes(b"8")
        serve = {"cpu": "model.int8.onnx", "cuda": "model.onnx"}
        stored = staging.commit(replace(make_manifest(), serve=serve, precision="int8"))
    assert stored.graph("cpu").name == "model.int8.onnx"
    assert stored.graph("cuda").name == "model.onnx"
    assert stored.sha256("cpu") == hashlib.sha256(b"8").hexdigest()


def test_left_without_commit_nothing_stays(store: Store) -> None:
    with store.stage("cars") as staging:
        (staging.path / "model.onnx").write_bytes(b"x")
        assert store.list_versions("cars") == []
    with pytest.raises(KeyboardInterrupt), store.stage("cars") as staging:
        raise KeyboardInterrupt
    assert list((store.root / "cars").iterdir()) == []
    assert store.list_names() == []


@pytest.mark.parametrize(
    ("ref", "wanted"),
    [
        ("cars", Ref("cars", None)),
        ("cars@3", Ref("cars", 3)),
        ("cars@production", Ref("cars", "production")),
        ("a.b-c_D9@x.1", Ref("a.b-c_D9", "x.1")),
    ],
)
def test_refs_are_read(ref: str, wanted: Ref) -> None:
    assert parse_ref(ref) == wanted


@pytest.mark.parametrize(
    "ref", ["", "@", "cars@", "@3", "cars@0", "cars@-1", "cars@03", "cars@3@4", "cars@²", "cars@3 "]
)
def test_misspelled_refs_are_refused(ref: str) -> None:
    with pytest.raises(StoreError):
        parse_ref(ref)


def test_a_version_removed_while_it_is_verified_is_not_promoted(store: Store, add: Add) -> None:
    add()
    add()
    verify = Store.verify

    def slow(self: Store, name: str, version: int) -> StoredVersion:
        found = verify(self, name, version)
        store.remove(name, version)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "verify", slow)
        with pytest.raises(ModelNotFoundError):
            store.promote("cars", 2)
    assert store.aliases("cars") == {"production": 1}


def test_promote_and_rollback(store: Store, add: Add) -> None:
    for _ in range(3):
        add()
    assert store.promote("cars", 3).version == 3
    assert store.aliases("cars") == {"production": 3, "previous": 1}
    assert store.resolve("cars").version == store.resolve("cars@production").version == 3
    assert store.resolve("cars@previous").version == 1
    assert store.rollback("cars").version == 1
    assert store.aliases("cars") == {"production": 1, "previous": 3}
    assert store.rollback("cars").version == 3


def test_promoting_production_changes_nothing(store: Store, add: Add) -> None:
    add(), add()
    store.promote("cars", 2)
    store.promote("cars", 2)
    assert store.aliases("cars") == {"production": 2, "previous": 1}


def test_rollback_needs_a_past(store: Store, add: Add) -> None:
    add()
    with pytest.raises(StoreError, match="before"):
        store.rollback("cars")
    with pytest.raises(ModelNotFoundError):
        store.rollback("boats")


def test_remove(store: Store, add: Add) -> None:
    add(), add(), add()
    store.promote("cars", 2)
    with pytest.raises(StoreError, match="production"):
        store.remove("cars", 2)
    store.remove("cars", 1)
    assert store.list_versions("cars") == [2, 3]
    assert store.aliases("cars") == {"production": 2}
    with pytest.raises(ModelNotFoundError):
        store.remove("cars", 1)
    assert not (store.root / "cars" / "1").exists()


def test_numbers_are_never_given_twice(store: Store, add: Add) -> None:
    add(), add()
    store.remove("cars", 2)
    assert store.next_version("cars") == 3
    assert add().version == 3


def test_alias_set_by_hand(store: Store, add: Add) -> None:
    add(), add()
    aliases = {"production": 1, "night": 2}
    (store.root / "cars" / "aliases.json").write_text(json.dumps(aliases))
    assert store.resolve("cars@night").version == 2
    with pytest.raises(StoreError, match="night"):
        store.remove("cars", 2)
    store.promote("cars", 2)
    assert store.aliases("cars") == {"production": 2, "previous": 1, "night": 2}


def test_what_is_not_there_is_said_with_what_is(store: Store, add: Add) -> None:
    with pytest.raises(ModelNotFoundError, match="empty"):
        store.resolve("cars")
    add(), add("digits")
    with pytest.raises(ModelNotFoundError, match=r"nearest: 'cars'.*cars, digits"):
        store.resolve("carz")
    with pytest.raises(ModelNotFoundError, match="there are 1"):
        store.resolve("cars@7")
    with pytest.raises(ModelNotFoundError, match="production = 1"):
        store.resolve("cars@night")


def test_root_is_given_or_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SURGERY_MODELS", "/srv/models")
    assert Store().root == Path("/srv/models")
    assert Store("here").root == Path("here")
    monkeypatch.delenv("SURGERY_MODELS")
    assert Store().root == Path("models")


def test_foreign_things_are_not_listed(store: Store, add: Add) -> None:
    add()
    root, folder = store.root, store.root / "cars"
    (root / "README.md").write_text("what this is")
    (root / "empty").mkdir()
    (root / ".git").mkdir()
    (folder / "7").mkdir()
    (folder / "8").write_text("a file")
    (folder / "03").mkdir()
    (folder / "notes").mkdir()
    (folder / "9").symlink_to("1")
    (root / "linked").symlink_to("cars")
    shutil.copytree(folder / "1", folder / "4")  # its manifest says 1
    shutil.copytree(folder / "1", folder / ".staging-1-copy")
    assert store.list_names() == ["cars"]
    assert store.list_versions("cars") == [1]
    assert add().version == 10


def test_half_a_version_is_not_listed_and_says_why(store: Store, add: Add) -> None:
    stored = add()
    stored.graph().unlink()
    assert store.list_versions("cars") == []
    with pytest.raises(StoreError, match=r"not whole: missing: .*model\.onnx"):
        store.resolve("cars")
    (stored.path / "manifest.json").write_text("{")
    with pytest.raises(StoreError, match="not JSON"):
        store.resolve("cars@1")


def test_manifest_must_describe_the_folder(store: Store) -> None:
    with store.stage("cars") as staging:
        with pytest.raises(StoreError, match="boats"):
            staging.commit(make_manifest("boats"))
        with pytest.raises(StoreError, match=r"model\.onnx"):
            staging.commit(make_manifest())
        write_graph(staging.path / "model.onnx")
        with pytest.raises(StoreError, match=r"mask_values"):
            staging.commit(replace(make_manifest(), output=make_manifest("a", "classify").output))
        assert store.list_versions("cars") == []
        assert staging.commit(make_manifest()).version == 1


def test_names_of_64_are_the_longest() -> None:
    assert check_name("a" * 64)
    with pytest.raises(StoreError):
        check_name("a" * 65)
