"""What a check of a dataset found, for people and for programs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from surgery.data.frequency import Frequencies
from surgery.data.table import Problem, Table
from surgery.data.targets import TargetSpec

SHOWN = 20
"""Lines of one kind that a text shows; `to_dict` holds all."""


@dataclass(frozen=True)
class Report:
    """What a check found."""

    table: Table
    """The table that was checked."""
    target: TargetSpec | None
    """What is to be learnt from it; None for everything."""
    problems: list[Problem]
    """What stops a run."""
    warnings: list[Problem]
    """What is worth knowing."""
    bad: frozenset[Path]
    """Images that `skip_bad` leaves out."""
    pixels: dict[Path, NDArray[np.int64]] = field(repr=False)
    """Pixels of each value, by image (segment)."""
    summary: dict[str, Any]
    """Layout, split, counts per class and the range of sizes."""
    frequencies: Frequencies
    """How often each class occurs."""
    rare: dict[int, str]
    """Classes of which train holds very little, by index into the table's, and how little."""
    similar: list[Problem]
    """Images that look like another of their own split: no warning, but good to know."""

    @property
    def skipped(self) -> int:
        """Images that `skip_bad` leaves out or that the reader has left out already."""
        return len(self.bad) + sum(problem.left_out for problem in self.problems)

    def text(self) -> str:
        """Return all problems as text, grouped by kind."""
        count = len(self.problems)
        lines = [f"{self.table.root}: {count} problem{'s' if count != 1 else ''} in the data"]
        return "\n".join(lines + group_lines(self.table, self.problems))

    def notes(self) -> list[str]:
        """Return all warnings as lines, grouped by kind."""
        return group_lines(self.table, self.warnings)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return {
            "data": str(self.table.root),
            "ok": not self.problems,
            "problems": [_plain(self.table, problem) for problem in self.problems],
            "warnings": [_plain(self.table, problem) for problem in self.warnings],
            "similar": [_plain(self.table, problem) for problem in self.similar],
            **self.summary,
        }


def group_lines(table: Table, problems: Sequence[Problem]) -> list[str]:
    """Return problems as lines under their kind; of very many of one kind only the first are shown."""
    groups: dict[str, list[Problem]] = defaultdict(list)
    for problem in problems:
        groups[problem.kind].append(problem)
    lines = []
    for kind, group in groups.items():
        if len(group) == 1 and group[0].path == table.root:  # it is about the data as a whole
            lines.append(f"  {kind}: {group[0].message}")
            continue
        lines.append(f"  {kind} ({len(group)})")
        lines += [f"    {_where(table, p.path)}: {p.message}" for p in group[:SHOWN]]
        if len(group) > SHOWN:
            lines.append(f"    and {len(group) - SHOWN} more; `surgery data check --json` lists all")
    return lines


def _where(table: Table, path: Path) -> str:
    return table.relative(path) if path.is_relative_to(table.root) else str(path)


def _plain(table: Table, problem: Problem) -> dict[str, str]:
    other = {} if problem.other is None else {"other": _where(table, problem.other)}
    return {
        "kind": problem.kind,
        "path": _where(table, problem.path),
        "message": problem.message,
        **other,
    }
