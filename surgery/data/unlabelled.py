"""Images that nobody has labelled, as a table: found, checked, and compared with a labelled one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from surgery.artifact.errors import DataError, ImageError
from surgery.artifact.image import read_image
from surgery.data.folders import child, describe_folder, files_in, is_image, subfolders
from surgery.data.hashing import hash_file
from surgery.data.loaders import iterate
from surgery.data.report import group_lines
from surgery.data.table import Item, Problem, Table, Task

LEAST = 2
"""Images that a domain has at least: one image has no spread."""
DEPTH_SAMPLE = 200
"""Images of the labelled data whose colour depth is looked at."""
MASKS = "masks"


@dataclass
class Found:
    """What stands below the given folders.

    Attributes:
        images: Image files, in a fixed order.
        notes: What was left out, in words.
    """

    images: list[Path]
    notes: list[str] = field(default_factory=list)


def find_unlabelled(roots: Sequence[Path]) -> Found:
    """Return all images in files and folders; the names of folders say nothing about them.

    Where a folder holds `images/` and `masks/` side by side, as labelled data does, the masks are left out.

    Raises:
        DataError: If a path is not there or may not be read, or there is no image.
    """
    found = Found([])
    for root in roots:
        try:
            if root.is_dir():
                found.images += _walk(root, found.notes, ())
            elif root.is_file():
                found.images.append(root)
            else:
                raise DataError(f"{root}: there is no such file or folder", "Check the path.")
        except OSError as error:
            place = error.filename or root
            raise DataError(f"{place}: cannot be read ({error.strerror})", "Check the rights.") from error
    if not found.images:
        held = "; ".join(f"{root} holds {describe_folder(root)}" for root in roots)
        raise DataError(f"no images without labels: {held}", "Name a folder of images.")
    return found


def read_unlabelled(
    roots: Sequence[Path],
    task: Task,
    classes: tuple[str, ...],
    judged: int,
    skip_bad: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Table, list[str]]:
    """Return images without labels as a table. Every file is decoded once.

    Args:
        roots: Folders and files.
        task: What the model does with them.
        classes: Names of the model's classes; no item says which it is.
        judged: Images, evenly spread, that stand in val as well: what is measured without labels is
            measured on them.
        skip_bad: Leave out what cannot be read instead of stopping.
        progress: Called with (images done, images in all).

    Returns:
        The table, all of its images in train, and notes for the user.

    Raises:
        DataError: If there are fewer than two images that can be read, or some cannot be.
    """
    found = find_unlabelled(roots)
    root = roots[0] if roots[0].is_dir() else roots[0].parent
    bad: list[Problem] = []
    whole: list[Path] = []
    for done, (path, problem) in enumerate(_inspect(found.images), start=1):
        if problem is None:
            whole.append(path)
        else:
            bad.append(problem)
        if progress is not None:
            progress(done, len(found.images))
    empty = Table(task, root, classes, (), "images without labels", "all of them learnt from")
    if bad and not skip_bad:
        lines = [f"{root}: {len(bad)} of {len(found.images)} images cannot be read"]
        raise DataError(
            "\n".join([*lines, *group_lines(empty, bad)]), "Fix or remove these, or give --skip-bad."
        )
    if len(whole) < LEAST:
        raise DataError(
            f"{root}: {len(whole)} image{'' if len(whole) == 1 else 's'} that can be read",
            "A domain is learnt from many images: give some dozens at least.",
        )
    notes = [*found.notes, *([f"left out: {len(bad)} images that cannot be read"] if bad else [])]
    copies = len(whole) - len({hash_file(path) for path in whole})
    if copies:
        notes.append(f"{copies} of the images are copies of others")
    items = [Item(path, None, None, "train") for path in whole]
    step = max(1.0, len(whole) / judged)
    items += [Item(whole[int(k * step)], None, None, "val") for k in range(min(judged, len(whole)))]
    return Table(task, root, classes, tuple(items), empty.layout, empty.split_rule), notes


def compare_domains(source: Table, target: Table) -> list[str]:
    """Refuse a target that is the source, or of another colour depth.

    Returns:
        Notes for the user on what the two share, and on grey against colour.

    Raises:
        DataError: If every image of the target is one of the source, or their bits per channel differ.
    """
    known = {hash_file(item.image) for item in source.items}
    mine = [item.image for item in target.of("train")]
    shared = [path for path in mine if hash_file(path) in known]
    if len(shared) == len(mine):
        raise DataError(
            f"{target.root}: every one of its {len(mine)} images is one of the source, {source.root}",
            "Give images of the domain that the model is to be adapted to.",
        )
    notes = []
    if shared:
        notes.append(
            f"{len(shared)} of the target's {len(mine)} images are images of the source, such as {shared[0]}"
        )
    stride = max(1, len(source.items) // DEPTH_SAMPLE)
    depths = [_count_depths([item.image for item in source.items[::stride]]), _count_depths(mine)]
    (here, grey_here), (there, grey_there) = depths
    if here != there:
        raise DataError(
            f"{target.root}: images of {_spell(there)} per channel, but {_spell(here)} in the source",
            "Convert one of them: how bright a value is must mean the same in both.",
        )
    if grey_here != grey_there:
        kinds = ["grey" if grey else "in colour" for grey in (grey_here, grey_there)]
        notes.append(f"the source is {kinds[0]}, the target {kinds[1]}: a part of the change of domain")
    return notes


def _walk(folder: Path, notes: list[str], above: tuple[Path, ...]) -> Iterator[Path]:
    here = folder.resolve()
    if here in above:  # a link to one of its own parents
        return
    yield from (path for path in files_in(folder) if is_image(path))
    for sub in subfolders(folder):
        if sub.name.lower() == MASKS and child(folder, "images") is not None:
            notes.append(f"left out: {sub}, which stands beside images/")
            continue
        yield from _walk(sub, notes, (*above, here))


def _inspect(paths: Sequence[Path]) -> Iterator[tuple[Path, Problem | None]]:
    def look(path: Path) -> tuple[Path, Problem | None]:
        try:
            read_image(path)
        except ImageError as error:
            return path, Problem("unreadable image", path, error.message.removeprefix(f"{path}: "))
        return path, None

    for loaded in iterate(paths, [[k] for k in range(len(paths))], look, workers=2, ahead=64):
        yield loaded[0]


def _count_depths(paths: Sequence[Path]) -> tuple[int, bool]:
    """Return the bits per channel that most images have, and whether most are grey."""
    looks = [colour_depth(path) for path in paths]
    depth = Counter(bits for bits, _ in looks).most_common(1)[0][0]
    return depth, 2 * sum(grey for _, grey in looks) > len(looks)


def colour_depth(path: Path) -> tuple[int, bool]:
    """Return the bits per channel that an image file holds, and whether it is grey, from its header."""
    with Image.open(path) as image:
        raw = image.tile[0].args if image.tile else ""  # type: ignore[attr-defined]
        raw = str(raw[0] if isinstance(raw, tuple) and raw else raw)
        grey = image.mode in ("1", "L", "LA", "F") or image.mode.startswith("I")
        if image.mode.startswith("I") or ";16" in raw:
            return 16, grey
        return (1 if image.mode == "1" or raw.endswith(";1") else 8), grey


def _spell(bits: int) -> str:
    return "1 bit" if bits == 1 else f"{bits} bits"
