"""What the store asks of the disk: locks, digests, files that have really been written."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from surgery.artifact.errors import DiskFullError, StoreError, UserError
from surgery.artifact.manifest import is_inside


def no_room(error: BaseException | None) -> bool:
    """Tell whether an error, or one that caused it, says that the disk is full."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        # torch and safetensors raise errors of their own and keep only the system's words.
        if os.strerror(errno.ENOSPC).lower() in str(error).lower():
            return True
        error = error.__cause__ or error.__context__
    return False


def disk_full(folder: Path) -> DiskFullError:
    """Return the error for a store on a full disk."""
    return DiskFullError(
        f"{folder}: the disk is full; nothing was added to the store",
        "make room (`surgery models remove NAME VERSION`, old runs/), then run the same again.",
    )


REFUSALS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST)
"""What the system says of a path that the user can mend or choose another one for."""


def path_refused(error: BaseException) -> UserError | None:
    """Return the error for a path that may not be read or written; None if the error says nothing of one."""
    if not isinstance(error, OSError) or error.errno not in REFUSALS or not error.filename:
        return None
    return UserError(
        f"{os.fsdecode(error.filename)}: {error.strerror}",
        "Check its rights, and whether it should be a file or a folder; or choose another place: by the "
        "command's options, or where surgery writes by $SURGERY_MODELS, $SURGERY_RUNS and $SURGERY_CACHE.",
    )


def cannot_write(path: Path, error: OSError) -> StoreError | DiskFullError:
    """Return the error for what the system said when the store was written to."""
    if no_room(error):
        return disk_full(path)
    return StoreError(
        f"{path}: cannot be written ({error.strerror or error})",
        "check the folder's owner and permissions, or set $SURGERY_MODELS to another folder.",
    )


def list_entries(folder: Path, links: bool = False) -> list[str]:
    """Return the names inside a folder, symbolic links only if asked; [] if it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if links or not entry.is_symlink()]
    except OSError:
        return []


def lock(folder: Path) -> int:
    """Lock a folder for this process; closing the descriptor, or dying, lets it go."""
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


@contextmanager
def locked(folder: Path, create: bool = False) -> Iterator[None]:
    """Hold the one lock of a model's folder.

    Raises:
        StoreError, DiskFullError: If the folder cannot be made or locked.
    """
    try:
        if create:
            folder.mkdir(parents=True, exist_ok=True)
        descriptor = lock(folder)
    except OSError as error:
        raise cannot_write(folder, error) from error
    try:
        yield
    finally:
        os.close(descriptor)


def remove_unlocked(folder: Path, prefix: str) -> None:
    """Remove the folders inside that begin with `prefix` and that no living process has locked.

    The caller holds the lock of `folder`, under which such folders are made and locked.
    """
    for entry in list_entries(folder):
        if not entry.startswith(prefix):
            continue
        with suppress(OSError):
            descriptor = os.open(folder / entry, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder / entry, ignore_errors=True)
            finally:
                os.close(descriptor)


def list_files(folder: Path) -> list[str]:
    """Return every file inside, as sorted relative paths.

    Raises:
        StoreError: If something else than plain files and folders is there.
    """
    files = []
    for path in sorted(folder.rglob("*")):
        file = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()) or not is_inside(file):
            raise StoreError(f"{path}: a version holds plain files only", "copy the file itself.")
        if path.is_file():
            files.append(file)
    return files


def sha256(path: Path, sync: bool = False) -> str:
    """Return a file's digest; with `sync`, after it has reached the disk."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if sync:
            os.fsync(file.fileno())
    return digest


def sync_folder(folder: Path) -> None:
    """Wait until the names inside a folder have reached the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, text: str) -> None:
    """Replace a file so that a reader sees the old or the new text, never a part.

    The caller holds the lock of the folder: the file written aside has one fixed name.
    """
    aside = path.with_name(f".{path.name}.tmp")
    try:
        with aside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
