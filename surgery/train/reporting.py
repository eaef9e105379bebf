"""Progress for people, on stderr: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

PLAIN_SECONDS = 20.0
"""Where there is no terminal, a running task prints a line no more often than this."""


class Task:
    """One piece of long work that says how far it is."""

    def __init__(self, name: str, console: Console, bar: Progress | None) -> None:
        self.name, self.console, self.bar = name, console, bar
        self.started = self.printed = time.monotonic()
        self.id = bar.add_task(name, total=None, notes="") if bar else None

    def update(self, done: int, total: int, **values: float) -> None:
        """Say that `done` of `total` are done; values are shown beside it."""
        notes = "  ".join(f"{key} {value:.4g}" for key, value in values.items())
        if self.bar is not None and self.id is not None:
            self.bar.update(self.id, completed=done, total=total, notes=notes)
            return
        now = time.monotonic()
        if now - self.printed >= PLAIN_SECONDS and 0 < done < total:
            self.printed = now
            left = (now - self.started) / done * (total - done)
            self.console.print(f"{self.name}: {done}/{total}  {notes}  {left:.0f} s left")


class Reporter:
    """Where recipes and the training loop print.

    Args:
        console: A rich console; None writes to stderr.
        quiet: Print nothing, as all processes of a run but one do.
    """

    def __init__(self, console: Console | None = None, quiet: bool = False) -> None:
        self.console = console or Console(stderr=True, highlight=False, soft_wrap=True, quiet=quiet)

    def line(self, text: str) -> None:
        """Print a line."""
        self.console.print(text, markup=False)

    @contextmanager
    def task(self, name: str) -> Iterator[Task]:
        """Show a piece of long work while it runs."""
        if not self.console.is_terminal:
            yield Task(name, self.console, None)
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[notes]}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console, transient=True) as bar:
            yield Task(name, self.console, bar)

    def epoch(self, row: dict[str, Any], better: bool, more: dict[str, float] | None = None) -> None:
        """Print what an epoch reached."""
        shown = row["val"] | (more or {})
        scores = "  ".join(f"{key} {value:.4f}" for key, value in shown.items())
        loss = "" if row["train_loss"] is None else f"loss {row['train_loss']:.4f}  "
        title = f"epoch {row['epoch']}" if row["epoch"] else "before training"
        star = "  best" if better else ""
        self.line(f"{title}: {loss}val loss {row['val_loss']:.4f}  {scores}  ({row['seconds']:.0f} s){star}")
