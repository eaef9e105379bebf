"""The images that a service kept as novel, taken for a run of adaptation."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from surgery.artifact.errors import DataError
from surgery.artifact.spool import list_spooled, spool_folder, spool_root
from surgery.artifact.store import Store, StoredVersion
from surgery.config import AdaptConfig
from surgery.train.run import runs_root, unfinished_config

TAKEN = "spool-"
"""Beginning of the name of a folder in runs/ with images from a spool."""
NO_LINKS = (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""What the system says of another disk, and of one that has no links."""


@contextmanager
def spool_taken(config: AdaptConfig, parent: StoredVersion, resume: bool) -> Iterator[AdaptConfig]:
    """Give the config with the images of the model's spool in its target, where it asks for them.

    The service goes on writing and removing images while a run learns from them, so the run has links of its
    own to those that are there now; a run that is resumed has those that it began with. A run that cannot
    begin inside keeps none that were taken for it.

    Args:
        config: Of the run.
        parent: The model that is adapted.
        resume: Whether an unfinished run may be gone on with.

    Raises:
        DataError: If the spool holds no image, or may not be read.
    """
    if not config.target_spool:
        yield config
        return
    begun = unfinished_config(config.name, "adapt") if resume else None
    before = [each for each in begun["target"] if Path(each).name.startswith(TAKEN)] if begun else []
    if before:
        yield _aim(config, before[-1])
        return
    with _kept_if_it_goes_well(spool_folder(spool_root(Store().root), parent.name)) as folder:
        yield _aim(config, str(folder))


def _aim(config: AdaptConfig, folder: str) -> AdaptConfig:
    return dataclasses.replace(config, target=(*config.target, folder), target_spool=False)


@contextmanager
def _kept_if_it_goes_well(spool: Path) -> Iterator[Path]:
    """Make a folder in runs/ with links to the images of a spool, and remove it after an error."""
    if spool.exists() and not os.access(spool, os.R_OK | os.X_OK):
        raise DataError(
            f"{spool}: may not be read; it is its service's alone",
            "Run this as the service's user, or let that user copy the images and give --target.",
        )
    images = list_spooled(spool)
    if not images:
        raise DataError(
            f"{spool}: holds no image",
            "Serve with SURGERY_COLLECT=true and ask novel images, set SURGERY_SPOOL to the service's spool,"
            " or give --target IMAGES.",
        )
    folder = _make_folder(f"{TAKEN}{spool.name}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}")
    try:
        for path in images:
            with suppress(FileNotFoundError):  # removed by the service just now
                _link(path, folder / path.name)
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _link(path: Path, place: Path) -> None:
    """Make a link to a file, or a copy where there can be none."""
    try:
        os.link(path, place)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        shutil.copyfile(path, place)


def _make_folder(name: str) -> Path:
    number = 1
    while True:
        folder = runs_root() / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(mode=0o700, parents=True)
            return folder
        except FileExistsError:
            number += 1
