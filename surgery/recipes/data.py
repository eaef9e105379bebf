"""surgery data: look at a dataset before training, or make a sample one."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surgery.artifact.errors import ConfigError

if TYPE_CHECKING:
    from surgery.data.report import Report
    from surgery.train.reporting import Reporter

KINDS = ("cars", "digits")


def check(
    data: str | Path,
    classes: Sequence[str] = (),
    ignore: Sequence[str] = (),
    as_json: bool = False,
    format: str | None = None,
    html: bool = False,
    out: Path | None = None,
) -> None:
    """Print what a dataset holds and everything that is wrong with it.

    Args:
        data: Folder of the dataset, or the file that lists it.
        classes: Classes that shall be learnt; empty for all.
        ignore: Classes, or mask values without a name, that shall be left out.
        as_json: Print one JSON object instead, with every problem in it.
        format: How it lies on disk; None finds it out.
        html: Write a page too, with samples of every class; also where there are problems.
        out: The page's file; None for a place among the runs.

    Raises:
        DataError: With all problems, if there are any.
        ConfigError: If the page cannot be written.
        SystemExit: With 2 in the case of problems if `as_json`: the object on stdout says it all.
    """
    from surgery.data.check import check_table, raise_for
    from surgery.data.readers import read_table
    from surgery.data.targets import resolve_target
    from surgery.train.reporting import Reporter

    table = read_table(Path(data), format=format)
    target = resolve_target(table, _split(classes), _split(ignore))
    page = _place_page(Path(data), out) if html else None
    console = Reporter()
    with console.task("checking data") as task:
        report = check_table(table, target, progress=task.update)
    if page is not None:
        _write_page(report, page, Path(data), console)
    if as_json:
        told = report.to_dict() | {"fingerprint": None if report.problems else table.fingerprint()}
        print(json.dumps(told | ({} if page is None else {"html": str(page)})))
        if report.problems:
            console.line(f"{len(report.problems)} problems in {table.root}")
            sys.exit(2)
        return
    _print_summary(report)
    for note in report.notes():
        console.line(note)
    raise_for(report)
    console.line("no problems")
    console.line(f"next: surgery finetune {data}{f' --format {format}' if format else ''} --name NAME")


def _place_page(data: Path, out: Path | None) -> Path:
    """Return where the page goes; asked before every file is decoded, for that may take long."""
    from surgery.train.run import runs_root

    page = out or runs_root() / f"data-check-{_data_name(data)}.html"
    if page.suffix.lower() not in (".html", ".htm") or page.is_dir():
        raise ConfigError(f"--out {page}: a page is a file that ends in .html", "choose another name")
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(page, error) from error
    return page


def _data_name(data: Path) -> str:
    """Return the name of a folder, or of a file that lists a dataset without its ending."""
    whole = data.resolve()
    return (whole.name if whole.is_dir() else whole.stem) or "data"


def _write_page(report: Report, page: Path, data: Path, console: Reporter) -> None:
    from surgery.artifact.disk import locked, write_whole
    from surgery.report.data_page import render_data_page

    with console.task("drawing the page") as task:
        text = render_data_page(report, _data_name(data), task.update)
    try:
        with locked(page.parent):
            write_whole(page, text)
    except OSError as error:
        raise _cannot_write(page, error) from error
    console.line(f"report: {page}")


def _cannot_write(page: Path, error: OSError) -> ConfigError:
    reason = error.strerror or str(error)
    return ConfigError(f"{page}: cannot be written ({reason})", "choose another place with --out")


def sample(
    kind: str,
    out: Path,
    n_train: int = 160,
    n_val: int = 40,
    domain: str = "day",
    seed: int = 0,
    size: tuple[int, int] = (320, 240),
) -> None:
    """Make a sample dataset.

    Args:
        kind: "cars": drawn street scenes with masks. "digits": scikit-learn's digits as class folders.
        out: The folder to make.
        n_train: Training scenes (cars).
        n_val: Validation scenes (cars).
        domain: "day" or "night" (cars).
        seed: Decides the scenes (cars).
        size: (width, height) of the scenes in pixels (cars).

    Raises:
        ConfigError: If an option does not do.
        DataError: If `out` holds something else, or cannot be written.
    """
    if kind not in KINDS:
        raise ConfigError(f"sample {kind!r}: there is {' and '.join(KINDS)}", "choose one")
    from surgery.train.reporting import Reporter

    console = Reporter()
    with console.task(f"writing {kind}") as task:
        if kind == "cars":
            from surgery.data.samples.cars import write_cars

            write_cars(Path(out), n_train, n_val, domain, seed, size, task.update)
        else:
            from surgery.data.samples.digits import write_digits

            write_digits(Path(out), task.update)
    print(out)
    more = " --task segment --classes car --ignore unlabelled" if kind == "cars" else ""
    console.line(f"next: surgery finetune {out} --name {kind}{more}")


def _split(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(part for text in names for part in text.split(",") if part)


def _print_summary(report: Report) -> None:
    from rich.console import Console
    from rich.table import Table as Grid

    facts = report.summary
    console = Console(highlight=False, soft_wrap=True)
    counts = ", ".join(f"{n} {split}" for split, n in facts["images"].items())
    console.print(f"{report.table.root}: {facts['task']}, {facts['layout']}", markup=False)
    console.print(f"images: {counts or 'none'} (split: {facts['split']})", markup=False)
    console.print(f"sizes: {_describe_sizes(facts['sizes'])}", markup=False)
    splits = list(facts["images"])
    grid = Grid("class", *splits, box=None, pad_edge=False)
    for split in splits:
        grid.columns[1 + splits.index(split)].justify = "right"
    totals = {split: sum(row[split] for row in facts["classes"].values()) for split in splits}
    for name, row in facts["classes"].items():
        cells = (
            str(row[split]) if facts["unit"] == "images" else f"{row[split] / max(totals[split], 1):.2%}"
            for split in splits
        )
        grid.add_row(_plain(name), *cells)
    console.print(grid)


def _plain(name: str) -> str:
    from rich.markup import escape

    return escape(name)


def _describe_sizes(sizes: dict[str, Any]) -> str:
    if not sizes["different"]:
        return "none"
    smallest, largest = ("×".join(map(str, sizes[end])) for end in ("smallest", "largest"))
    return smallest if sizes["different"] == 1 else f"{smallest} to {largest}, {sizes['different']} different"
