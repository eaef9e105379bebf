"""A run of adaptation takes the images of a spool, and keeps them whatever the service does."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from surgery.artifact.errors import ConfigError, DataError
from surgery.artifact.spool import list_spooled
from surgery.config import AdaptConfig, to_dict
from surgery.recipes.spooled import spool_taken
from surgery.train.run import runs_root

CARS: Any = SimpleNamespace(name="cars")


def config(**fields: Any) -> AdaptConfig:
    return AdaptConfig(**{"model": "cars@1", "target": (), "name": "night", "target_spool": True} | fields)


def take_spool(asked: AdaptConfig, parent: Any, resume: bool) -> AdaptConfig:
    with spool_taken(asked, parent, resume) as taken:
        return taken


def begin_run(taken: AdaptConfig) -> None:
    folder = runs_root() / "night-20260101-000000"
    folder.mkdir(parents=True)
    own = [str(Path(each).resolve()) for each in taken.target]
    run = {"name": "night", "kind": "adapt", "state": "unfinished"}
    (folder / "run.json").write_text(json.dumps({**run, "config": {**to_dict(taken), "target": own}}))


@pytest.fixture
def spool(rooms: Path) -> Path:
    """Two images in the spool of `cars`."""
    folder = rooms / "spool" / "cars"
    folder.mkdir(parents=True)
    for day in (1, 2):
        (folder / f"2026010{day}T000000.000000Z-{str(day) * 64}.jpg").write_bytes(b"image %d" % day)
    return folder


def test_the_images_of_the_spool_stand_beside_the_given_target(spool: Path) -> None:
    taken = take_spool(config(target=("given",)), CARS, False)
    given, own = taken.target
    assert (given, taken.target_spool) == ("given", False)
    images = sorted(Path(own).iterdir())
    assert [path.read_bytes() for path in images] == [b"image 1", b"image 2"]
    assert [path.name for path in images] == [path.name for path in list_spooled(spool)]
    assert Path(own).parent == runs_root()
    assert Path(own).stat().st_mode & 0o777 == 0o700


def test_what_the_service_removes_the_run_still_has(spool: Path) -> None:
    own = Path(take_spool(config(), CARS, False).target[0])
    for path in list_spooled(spool):
        path.unlink()
    assert [path.read_bytes() for path in sorted(own.iterdir())] == [b"image 1", b"image 2"]


def test_a_spool_on_another_disk_is_copied(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    own = Path(take_spool(config(), CARS, False).target[0])
    assert len(list(own.iterdir())) == 2


def test_each_run_has_its_own_and_a_resumed_one_what_it_began_with(spool: Path) -> None:
    first = take_spool(config(), CARS, True)
    assert take_spool(config(), CARS, True).target != first.target
    begin_run(first)
    (spool / f"20260103T000000.000000Z-{'3' * 64}.jpg").write_bytes(b"image 3")
    assert take_spool(config(), CARS, True).target == first.target
    assert len(list(Path(take_spool(config(), CARS, False).target[0]).iterdir())) == 3


def refuse(taken: AdaptConfig) -> None:
    assert Path(taken.target[0]).is_dir()
    raise ConfigError("a wrong option")


def test_a_run_that_cannot_begin_keeps_no_image(spool: Path) -> None:
    with pytest.raises(ConfigError), spool_taken(config(), CARS, False) as taken:
        refuse(taken)
    assert list(runs_root().glob("spool-*")) == []
    with spool_taken(config(), CARS, False) as taken:
        pass
    assert len(list(Path(taken.target[0]).iterdir())) == 2


@pytest.mark.parametrize("runs", ["", "runs"])
def test_a_resume_that_is_refused_keeps_what_the_run_began_with(
    spool: Path, monkeypatch: pytest.MonkeyPatch, runs: str
) -> None:
    if runs:  # as it is where nothing is set: relative, while a run's config is not
        monkeypatch.chdir(spool.parent)
        monkeypatch.setenv("SURGERY_RUNS", runs)
    first = take_spool(config(), CARS, False)
    begin_run(first)
    with pytest.raises(ConfigError), spool_taken(config(), CARS, True) as taken:
        refuse(taken)
    assert Path(taken.target[0]).samefile(first.target[0])
    assert len(list(Path(first.target[0]).iterdir())) == 2


def test_a_disk_that_fills_up_leaves_no_image_behind(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link, made = os.link, []

    def fail(one: Path, other: Path) -> None:
        if made:
            raise OSError(28, "No space left on device")
        made.append(link(one, other))

    monkeypatch.setattr(os, "link", fail)
    with pytest.raises(OSError, match="No space"):
        take_spool(config(), CARS, False)
    assert made
    assert list(runs_root().glob("spool-*")) == []


def test_another_users_spool_is_not_called_empty(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != spool)  # nothing is closed to root
    with pytest.raises(DataError, match="may not be read"):
        take_spool(config(), CARS, False)


def test_without_the_wish_the_spool_is_left_alone(spool: Path) -> None:
    asked = config(target=("given",), target_spool=False)
    assert take_spool(asked, CARS, False) is asked
    assert not runs_root().exists()


def test_an_empty_spool_is_an_error_that_says_where_it_is(rooms: Path) -> None:
    with pytest.raises(DataError, match=r"spool/cars: holds no image") as raised:
        take_spool(config(), CARS, False)
    assert "SURGERY_COLLECT" in raised.value.hint
    with pytest.raises(ConfigError, match="--target-spool"):
        config(target_spool=False)
