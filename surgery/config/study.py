"""What every study is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from surgery.artifact.errors import ConfigError


@dataclass(frozen=True)
class StudyConfig:
    """The options that all studies share."""

    data: str
    """Folder of the data set, or the file that lists it."""
    seeds: int = 3
    """Repeats; intervals are over them."""
    epochs: int | None = None
    """Passes over the images of a training; None is the study's own."""
    image_size: int | None = None
    """Side of the square input in pixels; None is the study's own."""
    per_class: int | None = None
    """Images of a class on each side at most; None: all."""
    batch_size: int | None = None
    """Images per step; None is the study's own."""
    jobs: int = 1
    """Trainings at a time."""
    backend: str = "loky"
    """Who runs them: `loky` (processes of this machine), `dask` or `ray` (a cluster)."""
    device: str = "auto"
    """`auto`, `cpu` or `cuda`."""
    out: Path | None = None
    """Folder of the result; None is `runs/studies/<study>-<data>/`."""

    def __post_init__(self) -> None:
        problems = [
            f"--{name.replace('_', '-')} {value}: {least} or more"
            for name, least in (
                ("seeds", 1), ("epochs", 1), ("image_size", 8), ("per_class", 2), ("batch_size", 2),
                ("jobs", 1),
            )
            if (value := getattr(self, name)) is not None and value < least
        ]  # fmt: skip
        if problems:
            raise ConfigError("\n".join(problems), "See `surgery study --help`.")
