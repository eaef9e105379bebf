"""The cars sample: street scenes with exact masks."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2

from surgery.artifact.errors import ConfigError
from surgery.data.loaders import iterate
from surgery.data.samples.canvas import CLASSES
from surgery.data.samples.street import DOMAINS, draw_street
from surgery.data.samples.writing import new_folder, write_image

__all__ = ["draw_street", "write_cars"]

VERSION = 1
"""Number of the drawings; raised when the same seed gives other pictures."""
_SPLIT_SEEDS = {"train": 0, "val": 1}


def write_cars(
    out: Path,
    n_train: int = 160,
    n_val: int = 40,
    domain: str = "day",
    seed: int = 0,
    size: tuple[int, int] = (320, 240),
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
) -> Path:
    """Write street scenes as {train,val}/images/*.jpg, {train,val}/masks/*.png and classes.txt.

    Args:
        out: The folder to make. One that holds the same kind of sample already is made anew.
        n_train: Number of training scenes.
        n_val: Number of validation scenes.
        domain: "day" or "night". The scenes of the two differ, whatever the seed.
        seed: Decides all scenes.
        size: (width, height) of the pictures.
        progress: Called with (scenes done, scenes in all).
        workers: Threads; None for one per core, eight at most.

    Returns:
        `out`.

    Raises:
        ConfigError: If a number or the domain does not do.
        DataError: If `out` holds something else, or cannot be written.
    """
    if n_train < 1 or n_val < 0:
        raise ConfigError(f"n_train {n_train}, n_val {n_val}: one training scene is needed at least")
    if domain not in DOMAINS:
        raise ConfigError(f"domain {domain!r}: there is {' and '.join(DOMAINS)}", "choose one")
    made: dict[str, Any] = {"kind": "cars", "version": VERSION, "n_train": n_train, "n_val": n_val}
    made |= {"domain": domain, "seed": seed, "size": list(size)}
    scenes = [("train", i) for i in range(n_train)] + [("val", i) for i in range(n_val)]
    with new_folder(Path(out), made) as folder:
        (folder / "classes.txt").write_text("\n".join(CLASSES) + "\n", "utf-8")
        for split in {split for split, _ in scenes}:
            (folder / split / "images").mkdir(parents=True)
            (folder / split / "masks").mkdir()

        def write(scene: tuple[str, int]) -> None:
            split, index = scene
            numbers = (seed, DOMAINS.index(domain), _SPLIT_SEEDS[split], index)
            image, mask = draw_street(numbers, domain, size)
            name = f"{domain}_{index:05d}"
            jpeg = (cv2.IMWRITE_JPEG_QUALITY, 93)
            write_image(folder / split / "images" / f"{name}.jpg", image[:, :, ::-1], jpeg)
            write_image(folder / split / "masks" / f"{name}.png", mask)

        threads = min(os.cpu_count() or 1, 8) if workers is None else workers
        order = [[index] for index in range(len(scenes))]
        for done, _ in enumerate(iterate(scenes, order, write, threads, 4 * threads), start=1):
            if progress is not None:
                progress(done, len(scenes))
    return Path(out)
