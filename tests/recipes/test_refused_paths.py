"""A path that may not be read or written is named, without a traceback."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from tiny_colours import add_colours, draw_colours

from surgery.artifact.errors import DataError
from surgery.cli import main
from surgery.data.readers import read_table
from surgery.train.cache import ActivationCache


def refuse(path: Path, number: int = errno.EACCES) -> None:
    raise OSError(number, os.strerror(number), str(path))


def test_an_out_that_is_a_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add_colours(statistics=False)
    images, out = draw_colours(tmp_path / "images", 1), tmp_path / "out"
    out.write_text("")
    assert main(["predict", "colours", str(images), "--out", str(out), "--json"]) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"error: {out}: File exists")
    assert json.loads(said.out)["error"]["code"] == "bad_input"


def test_a_folder_that_may_not_be_read_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    add_colours(statistics=False)
    images = draw_colours(tmp_path / "images", 1)
    monkeypatch.setattr("surgery.data.folders.files_in", refuse)
    assert main(["predict", "colours", str(images)]) == 2
    assert f"{images}: Permission denied" in capsys.readouterr().err


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR])
def test_a_cache_that_cannot_be_made_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def make(self: Path, **_: object) -> None:
        refuse(self, number)

    def open_cache(*_: object) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Path, "mkdir", make)
            ActivationCache({}, 1.0, tmp_path / "cache")

    monkeypatch.setattr("surgery.recipes.data.check", open_cache)
    assert main(["data", "check", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert f"{tmp_path / 'cache'}" in said
    assert os.strerror(number) in said
    assert "$SURGERY_CACHE" in said


def test_what_says_nothing_of_a_path_is_no_mistake_of_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("surgery.recipes.data.check", fail)
    with pytest.raises(OSError, match="Permission denied"):
        main(["data", "check", "anything"])


def test_an_image_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        draw_colours(tmp_path / name, 3)
    monkeypatch.setattr("surgery.data.readers.draw_val", lambda items, *_: refuse(items[0].image))
    with pytest.raises(DataError, match=r"cannot be read: .*Permission denied"):
        read_table(tmp_path)
