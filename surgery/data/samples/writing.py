"""Write a sample dataset: all of it or nothing, and never over somebody's files."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from surgery.artifact.errors import DataError

RECORD = "sample.json"
"""The file in a sample that says how it was made, and that it may be made again."""


@contextmanager
def new_folder(out: Path, made: dict[str, Any]) -> Iterator[Path]:
    """Yield a folder beside `out` that takes its place at the end, or vanishes.

    Args:
        out: The folder to make; replaced if it is a sample of the same kind and holds nothing else.
        made: How the sample is made, "kind" among it; kept in it as `RECORD`.

    Raises:
        DataError: If `out` holds something else, or cannot be written.
    """
    _refuse_foreign(out, made["kind"])
    try:
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.absolute().parent))
        folder.chmod(0o755)
    except OSError as error:
        raise DataError(f"{out}: cannot be written: {error}", "choose another place") from error
    try:
        yield folder
        record = made | {"files": _list_files(folder)}
        (folder / RECORD).write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", "utf-8")
        _refuse_foreign(out, made["kind"])  # somebody may have put files there meanwhile
        if out.exists():
            shutil.rmtree(out)
        folder.rename(out)
    except OSError as error:
        raise DataError(f"{out}: cannot be written: {error}", "make room, or choose another place") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _refuse_foreign(out: Path, kind: str) -> None:
    if not out.exists():
        return
    if out.is_dir() and not any(out.iterdir()):
        return
    try:
        record = json.loads((out / RECORD).read_text("utf-8"))
        ours, written = record["kind"] == kind, {RECORD, *record.get("files", ())}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        ours, written = False, set()
    if not ours:
        raise DataError(f"{out}: is there already and is no {kind} sample", "name a new folder")
    foreign = [path for path in _list_files(out) if path not in written]
    if foreign:
        raise DataError(
            f"{out}: holds {len(foreign)} files that are not of the sample, such as {foreign[0]}",
            "move them away, or name a new folder",
        )


def _list_files(folder: Path) -> list[str]:
    """Return the paths of all files and links in a folder, relative to it."""
    found = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return sorted(path.relative_to(folder).as_posix() for path in found)


def write_image(path: Path, pixels: NDArray[np.uint8], options: tuple[int, ...] = ()) -> None:
    """Write pixels, (h, w) or (h, w, 3) in OpenCV's order BGR, in the format of the ending."""
    _, data = cv2.imencode(path.suffix, np.ascontiguousarray(pixels), list(options))
    path.write_bytes(data.tobytes())
