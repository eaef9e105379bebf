"""Writes report.html: gathers what each section shows, and prints it through the template."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from surgery.artifact.answer import class_colours
from surgery.artifact.manifest import Manifest
from surgery.config import load_recipe
from surgery.deliver.package import Unsealed
from surgery.report import REPORT_FILE, sections
from surgery.report.adaptation import show_adaptation
from surgery.report.command import command_line
from surgery.report.counts import count_classes
from surgery.report.intervals import COVERED, RESAMPLES, bootstrap
from surgery.report.learning import draw_losses, draw_rates, draw_scores, judge
from surgery.report.mistakes import SHOWN, draw_mistakes, find_mistakes
from surgery.report.template import read_template
from surgery.train.interrupt import raise_if_requested
from surgery.train.reporting import Reporter
from surgery.train.run import RATES_FILE

TEMPLATE = "report.html.j2"


def write_report(version: Unsealed, report: Reporter) -> None:
    """Write the report of a version into its folder.

    Args:
        version: With model, `recipe.yaml` and `history.json` in its folder.
        report: Where progress is shown.

    Raises:
        KeyboardInterrupt: If the user stops the run.
    """
    with _progress(report, "resampling val") as show:
        intervals = bootstrap(version.val.scorer, version.val.scores.n, show)
    with _progress(report, "counting classes") as show:
        counts = count_classes(version.table, version.targets, show)
    mistakes = find_mistakes(version.val.images, version.manifest.output)
    with _progress(report, "drawing the worst mistakes") as show:
        cards = draw_mistakes(version, mistakes[:SHOWN], show)
    recipe = version.folder / "recipe.yaml"
    text = read_template(TEMPLATE).render(
        manifest=version.manifest,
        described=describe_task(version.manifest),
        colours=class_colours(version.manifest.output) if version.manifest.output.mask_values else {},
        scores=sections.score_rows(version.manifest, version.val.scores, intervals),
        resampling={"times": RESAMPLES, "covered": COVERED},
        learning=show_learning(version),
        adaptation=show_adaptation(version),
        classifiers=sections.classifiers(version.manifest),
        classes=sections.class_table(version.val.scores),
        confusion=sections.confusion_table(version.manifest, version.val.scores),
        calibration=sections.calibration(version.manifest),
        mistakes={"count": len(mistakes), "cards": cards},
        layers=sections.layers(version.manifest),
        data=sections.data(version, counts),
        command=command_line(load_recipe(recipe)),
        recipe=recipe.read_text("utf-8"),
    )
    (version.folder / REPORT_FILE).write_text(text, "utf-8")


def show_learning(version: Unsealed) -> dict[str, Any] | None:
    """Return the curves of a training by epochs and what they say; None where there were none."""
    history = json.loads((version.folder / "history.json").read_text("utf-8"))["epochs"]
    if not history:
        return None
    best = int(version.manifest.strategy["best_epoch"])
    return {
        "said": judge(history, best),
        "best": best,
        "phases": version.manifest.strategy["phases"],
        "losses": draw_losses(history, best),
        "scores": draw_scores(history, best, list(version.val.scores.scores)),
        "rates": draw_rates(version.folder / RATES_FILE),
    }


def describe_task(manifest: Manifest) -> str:
    """Return in words what the model answers."""
    output = manifest.output
    if manifest.task == "segment":
        learnt = [name for name in output.classes if name != output.rest]
        against = " against the rest" if output.rest else ""
        return f"Masks of {_list(learnt)}{against}."
    kind = "Any of the labels" if output.multilabel else "One label of"
    return f"{kind} {_list(list(output.classes))}."


def _list(names: list[str], most: int = 12) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


@contextmanager
def _progress(report: Reporter, name: str) -> Iterator[Callable[[int, int], None]]:
    with report.task(name) as task:

        def show(done: int, total: int) -> None:
            task.update(done, total)
            raise_if_requested()

        yield show
