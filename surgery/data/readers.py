"""Read labelled images as they lie on disk into a table; the format is found out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from surgery.artifact.errors import ConfigError, DataError
from surgery.data.folders import describe_folder
from surgery.data.formats import FORMATS
from surgery.data.formats.draft import LAYOUTS, Draft, Format
from surgery.data.splits import describe_split, draw_val
from surgery.data.table import SPLITS, Item, Problem, Table


def read_table(
    root: Path,
    task: str | None = None,
    val_share: float = 0.2,
    seed: int = 0,
    format: str | None = None,
    recorded: Mapping[str, str] | None = None,
) -> Table:
    """Read a data set.

    Args:
        root: The folder, or the file that lists the images.
        task: "classify", "segment", or None for what the format says.
        val_share: Share of train drawn for validation where no val is given, 0–1.
        seed: Seed of that draw.
        format: Name of one of `FORMATS`; None finds it out.
        recorded: Sides that an earlier draw gave, by sha256 of the image (see `draw_val`).

    Returns:
        The table; what is wrong with single files is left to `check_table`.

    Raises:
        ConfigError: If there is no such format.
        DataError: If there is no such data, nothing fits, or `task` contradicts the format.
    """
    root = Path(root)
    try:
        _require_data(root)
        chosen = _choose(root, format)
        if task is not None and task != chosen.task:
            raise DataError(
                f"{root}: is laid out for {chosen.task} ({chosen.name}), but {task} is asked for",
                f"give data that is laid out for {task}.\n{LAYOUTS}",
            )
        draft = chosen.read(root)
        return _finish(root if root.is_dir() else root.parent, draft, val_share, seed, recorded)
    except OSError as error:
        raise DataError(f"{root}: cannot be read: {error}", "check the rights") from error


def _choose(root: Path, format: str | None) -> Format:
    names = {each.name: each for each in FORMATS}
    if format is not None and format not in names:
        raise ConfigError(f"--format {format!r}: there is {', '.join(names)}", "choose one")
    if format is not None and root.is_file() and not names[format].fits(root):
        raise DataError(f"{root}: is a file, which --format {format} does not take", "name a folder")
    if format is not None:
        return names[format]
    found = next((each for each in FORMATS if each.fits(root)), None)
    if found is None:
        raise DataError(
            f"{root}: is a file, not a folder", "name a folder, or a CSV file; unpack an archive first"
        )
    return found


def _finish(
    root: Path, draft: Draft, val_share: float, seed: int, recorded: Mapping[str, str] | None
) -> Table:
    if not draft.items and draft.problems:
        count = f", and {len(draft.problems) - 1} more problems" if len(draft.problems) > 1 else ""
        raise DataError(f"{root}: no image is left\n{draft.problems[0]}{count}", "mend these first")
    if not draft.items:
        raise DataError(f"{root}: no images in it\nfound: {describe_folder(root)}", LAYOUTS)
    if not any(item.split == "train" for item in draft.items) and draft.splits:
        raise DataError(f"{root}: no image is in train", "give a train split, or no split at all")
    items = sorted(_drop_repeats(draft), key=lambda item: item.image.as_posix())
    rule = "given"
    if "val" not in draft.splits:
        items = draw_val(items, val_share, seed, recorded)
        rule = describe_split(val_share, seed, not draft.splits, bool(recorded))
    return Table(
        task=draft.task,
        root=root,
        classes=draft.classes,
        items=tuple(items),
        layout=draft.layout,
        split_rule=rule,
        multilabel=draft.multilabel,
        ignored_values=draft.ignored_values,
        problems=tuple(draft.problems),
        warnings=tuple(draft.warnings),
    )


def _drop_repeats(draft: Draft) -> list[Item]:
    """Return each image once, in the split that is farthest from training."""
    kept: dict[Path, Item] = {}
    for item in sorted(draft.items, key=lambda item: SPLITS.index(item.split), reverse=True):
        other = kept.setdefault(item.image, item)
        if other.split != item.split:
            message = f"is listed in {item.split} and in {other.split}"
            draft.problems.append(Problem("same image in two splits", item.image, message, left_out=True))
        elif other != item:
            message = "is listed twice, with different labels or masks"
            draft.problems.append(Problem("image listed twice", item.image, message, left_out=True))
        elif other is not item:
            draft.warnings.append(Problem("image listed twice", item.image, f"in {item.split}"))
    return list(kept.values())


def _require_data(root: Path) -> None:
    if not root.exists():
        parent = next(folder for folder in root.absolute().parents if folder.is_dir())
        raise DataError(
            f"{root}: there is no such folder",
            f"nearest folder that is there: {parent}, with {describe_folder(parent)}",
        )
