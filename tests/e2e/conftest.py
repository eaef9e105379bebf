"""Tiny data sets that are drawn on the spot, and the program's commands as functions."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from running import Ran, Surgery

from surgery.cli import main
from surgery.data.samples.cars import write_cars
from surgery.data.samples.digits import write_digits

SCENE = (96, 64)


@pytest.fixture
def surgery(capsys: pytest.CaptureFixture[str]) -> Surgery:
    """Run a command in this process, as the `surgery` command would."""

    def run(*arguments: object) -> Ran:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return Ran(code, printed.out, printed.err)

    return run


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Street scenes: 10 for training and 4 for validation."""
    return write_cars(tmp_path_factory.mktemp("samples") / "scenes", n_train=10, n_val=4, size=SCENE)


@pytest.fixture(scope="session")
def zeros_and_ones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Handwritten zeros and ones: 20 of each for training and 10 for validation."""
    folder = tmp_path_factory.mktemp("digits")
    write_digits(folder / "all")
    for label in ("0", "1"):
        files = sorted((folder / "all" / label).iterdir())
        for split, chosen in (("train", files[:20]), ("val", files[20:30])):
            target = folder / "two" / split / label
            target.mkdir(parents=True)
            for file in chosen:
                shutil.copy(file, target)
    return folder / "two"
