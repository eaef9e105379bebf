"""Folders and files as a dataset's reader sees them: without hidden ones, in a fixed order."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from pathlib import Path

from surgery.data.table import Problem

# Everything that calls itself an image becomes an item, formats that cannot be read included: an
# item that cannot be decoded is reported, a file that is left out in silence is not.
IMAGE_SUFFIXES = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".webp",
        ".bmp",
        ".tif",
        ".tiff",
        ".gif",
        ".heic",
        ".heif",
        ".avif",
        ".jp2",
        ".jxl",
        ".ppm",
        ".pgm",
        ".tga",
        ".ico",
        ".psd",
        ".svg",
    ]
)
NO_USER_FILES = frozenset({"thumbs.db", "desktop.ini", "__macosx"})


def _hidden(path: Path) -> bool:
    return path.name.startswith(".") or path.name.lower() in NO_USER_FILES


def subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not _hidden(path))


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if _is_file(path) and not _hidden(path))


def _is_file(path: Path) -> bool:
    """Tell files, and links to images that are gone: as items they are reported, left out they are not."""
    return path.is_file() or (
        path.suffix.lower() in IMAGE_SUFFIXES and path.is_symlink() and not path.exists()
    )


def child(folder: Path, name: str) -> Path | None:
    return next((sub for sub in subfolders(folder) if sub.name.lower() == name), None)


def class_name(folder: Path) -> str:
    # The same class typed on two systems: macOS stores accents decomposed, others composed.
    return unicodedata.normalize("NFC", folder.name)


def stem_of(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()


def list_images(
    folder: Path, strays: list[Problem] | None = None, above: tuple[Path, ...] = ()
) -> Iterator[Path]:
    """Yield the images below a folder in a fixed order; other files are added to `strays`."""
    here = folder.resolve()
    if here in above:  # a link to one of its own parents
        return
    for path in files_in(folder):
        if is_image(path):
            yield path
        elif strays is not None:
            strays.append(Problem("not an image", path, "left out"))
    for sub in subfolders(folder):
        yield from list_images(sub, strays, (*above, here))


def is_image(path: Path) -> bool:
    """Tell by name or first bytes whether a file calls itself an image."""
    return path.suffix.lower() in IMAGE_SUFFIXES or _looks_like_image(path)


def _looks_like_image(path: Path) -> bool:
    """Tell by the first bytes whether a file without an image's name is one."""
    with path.open("rb") as file:
        head = file.read(12)
    magics = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"II*\0", b"MM\0*")
    return head.startswith(magics) or (head[:4] == b"RIFF" and head[8:] == b"WEBP")


def join_names(paths: object) -> str:
    return ", ".join(f"{path.name}/" for path in paths)  # type: ignore[attr-defined]


def describe_folder(folder: Path, most: int = 8) -> str:
    folders, files = subfolders(folder), files_in(folder)
    shown = [f"{path.name}/" for path in folders[:most]]
    kinds = sorted({path.suffix.lower() or path.name for path in files})
    more = f" and {len(folders) - most} more folders" if len(folders) > most else ""
    tail = f"{len(files)} files ({', '.join(kinds[:most])})" if files else ""
    return (", ".join([*shown, *([tail] if tail else [])]) or "nothing") + more
