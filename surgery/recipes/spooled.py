"""The images that a service kept as novel, taken for a run of adaptation."""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

from surgery.artifact.errors import DataError
from surgery.artifact.spool import list_spooled, spool_folder, spool_root
from surgery.artifact.store import Store, StoredVersion
from surgery.config import AdaptConfig
from surgery.train.run import runs_root, unfinished_config

TAKEN = "spool-"
"""Beginning of the name of a folder in runs/ with images from a spool."""


def take_spool(config: AdaptConfig, parent: StoredVersion, resume: bool) -> AdaptConfig:
    """Return the config with the images of the model's spool in its target, where it asks for them.

    The service goes on writing and removing images while a run learns from them, so the run has links of its
    own to those that are there now; a run that is resumed has those that it began with.

    Args:
        config: Of the run.
        parent: The model that is adapted.
        resume: Whether an unfinished run may be gone on with.

    Raises:
        DataError: If the spool holds no image.
    """
    if not config.target_spool:
        return config
    begun = unfinished_config(config.name, "adapt") if resume else None
    before = [each for each in begun["target"] if Path(each).name.startswith(TAKEN)] if begun else []
    taken = before[-1] if before else str(_link(spool_folder(spool_root(Store().root), parent.name)))
    return dataclasses.replace(config, target=(*config.target, taken), target_spool=False)


def _link(spool: Path) -> Path:
    """Make a folder in runs/ with links to the images of a spool, copies where there can be none."""
    images = list_spooled(spool)
    if not images:
        raise DataError(
            f"{spool}: holds no image",
            "Serve with SURGERY_COLLECT=true and ask novel images, set SURGERY_SPOOL to the service's spool,"
            " or give --target IMAGES.",
        )
    folder = _make_folder(f"{TAKEN}{spool.name}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}")
    for path in images:
        with suppress(FileNotFoundError):  # removed by the service just now
            try:
                os.link(path, folder / path.name)
            except FileNotFoundError:
                raise
            except OSError:  # the spool is on another disk
                shutil.copyfile(path, folder / path.name)
    return folder


def _make_folder(name: str) -> Path:
    number = 1
    while True:
        folder = runs_root() / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(mode=0o700, parents=True)
            return folder
        except FileExistsError:
            number += 1
