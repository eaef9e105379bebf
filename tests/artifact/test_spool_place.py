"""Where a spool is, and what lies in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from surgery.artifact.errors import StoreError
from surgery.artifact.spool import is_spooled, list_spooled, spool_folder, spool_root


def test_the_spool_lies_beside_the_store_unless_something_names_another_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert spool_root(Path("srv/models")) == Path("srv/spool")
    assert spool_root(Path("models")) == Path("spool")
    monkeypatch.setenv("SURGERY_SPOOL", "/var/spool/novel")
    assert spool_root(Path("srv/models")) == Path("/var/spool/novel")
    assert spool_root(Path("srv/models"), "/srv/other") == Path("/srv/other")


@pytest.mark.parametrize("name", ["../cars", "/cars", "", ".cars"])
def test_no_name_leads_out_of_the_spool(name: str) -> None:
    with pytest.raises(StoreError):
        spool_folder(Path("spool"), name)


def test_images_are_listed_by_their_moment_and_nothing_else_is(tmp_path: Path) -> None:
    wanted = [f"2026010{day}T000000.000000Z-{'fedcba'[day] * 64}.jpg" for day in (1, 2)]
    for name in (*reversed(wanted), ".aside-c", "holiday.jpg", f"{wanted[0]}.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in list_spooled(tmp_path)] == wanted
    assert list_spooled(tmp_path / "none") == []


def test_a_link_to_an_image_of_the_spool_is_one(tmp_path: Path) -> None:
    image = tmp_path / "spool" / "cars" / "a.jpg"
    image.parent.mkdir(parents=True)
    image.touch()
    (tmp_path / "link").symlink_to(image.parent)
    assert is_spooled(tmp_path / "link" / "a.jpg", tmp_path / "spool")
    assert not is_spooled(tmp_path / "a.jpg", tmp_path / "spool")


def test_an_image_of_a_spool_is_one_wherever_it_was_taken(tmp_path: Path) -> None:
    name = f"20260101T000000.000000Z-{'f' * 64}.jpg"
    assert is_spooled(Path("runs/spool-cars-20260102-000000") / name, tmp_path)
