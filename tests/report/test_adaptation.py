"""What a report shows of an adaptation: what chose, what it cost, and that labels chose nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from unsealed import CLASSES, make_labels

from surgery.deliver.package import Unsealed
from surgery.report import ADAPTATION_FILE, REPORT_FILE
from surgery.report.adaptation import CRITERIA, show_adaptation
from surgery.report.page import write_report
from surgery.train.reporting import Reporter

SHADES = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 10, 0)]
CHOICES = {"information": 2, "entropy": 2, "density": 0, "embedded": 1, "source": 1}
"""The epoch that each criterion prefers."""
REACHED = (0.5, 0.75, 0.7)
"""Accuracy on the target's labels at each epoch."""


def make_pages(labelled: bool) -> dict[str, Any]:
    history = []
    for epoch in range(3):
        row: dict[str, Any] = {
            "epoch": epoch,
            "criteria": {name: float(epoch == best) for name, best in CHOICES.items()},
            "steps": {"trade": 0.1 * epoch, "accuracy": 0.9, "task": 0.3, "domain": 0.6},
        }
        if labelled:
            row["target"] = {"accuracy": REACHED[epoch], "macro_f1": 0.5}
        history.append(row)
    facts: dict[str, Any] = {
        "method": "dann", "parent": "tiny@1", "source": {"path": "day"}, "stage": "stage5",
        "target": {"path": ["dusk"], "images": 40}, "chosen_by": "information", "epoch": 2,
        "distance": {"before": 1.9, "after": 0.4},
        "methods": {
            "coral": {"epoch": 1, "criteria": dict.fromkeys(CRITERIA, 0.2)},
            "dann": {"epoch": 2, "criteria": dict.fromkeys(CRITERIA, 0.8)},
        },
    }  # fmt: skip
    scores = {"before": {"accuracy": 0.5, "macro_f1": 0.4}, "after": {"accuracy": 0.7, "macro_f1": 0.6}}
    if labelled:
        facts["labels"] = {"path": "dusk-labels", "n": 22, "used_to_choose": False, **scores}
        for name, value in (("coral", 0.6), ("dann", 0.7)):
            facts["methods"][name]["target"] = {"accuracy": value}
    plane = {kind: {"source": [[0.0, 1.0]], "target": [[1.0, 0.0]]} for kind in ("pca", "tsne")}
    per_class = {name: {"f1": 0.5} for name in CLASSES}
    each = {"before": per_class, "after": per_class}
    return {
        "facts": facts, "classes": list(CLASSES), "history": {"dann": history, "coral": history},
        "planes": {"before": plane, "after": plane},
        "frequencies": {"before": [0.2, 0.3, 0.5], "after": [0.3, 0.3, 0.4]},
        "moves": [[3, 1, 0], [0, 4, 0], [2, 0, 0]],
        "per_class": {"source": each, **({"target": each} if labelled else {})},
    }  # fmt: skip


def make(folder: Path, labelled: bool) -> Unsealed:
    version = make_labels(folder, SHADES, [0, 1, 2, 0])
    (folder / ADAPTATION_FILE).write_text(json.dumps(make_pages(labelled)))
    return version


def test_a_version_that_was_not_adapted_has_no_such_section(tmp_path):
    version = make_labels(tmp_path, SHADES, [0, 1, 2, 0])
    assert show_adaptation(version) is None
    write_report(version, Reporter(quiet=True))
    assert 'id="adaptation"' not in (tmp_path / REPORT_FILE).read_text("utf-8")


def test_each_criterion_stands_beside_what_its_choice_would_have_cost(tmp_path):
    shown = show_adaptation(make(tmp_path, labelled=True))
    rows = {row["name"]: row for row in shown["criteria"]}
    assert {name: row["epoch"] for name, row in rows.items()} == CHOICES
    assert {name: row["regret"] for name, row in rows.items()} == pytest.approx(
        {"information": 5, "entropy": 5, "density": 25, "embedded": 0, "source": 0}
    )
    assert [name for name, row in rows.items() if row["chose"]] == ["information"]
    assert [row["name"] for row in shown["methods"]] == ["dann", "coral"]
    assert shown["moves"]["same"] == pytest.approx(0.7)
    assert {curve["title"] for curve in shown["curves"]} == {
        "λ and the domain classifier",
        "Losses",
        "Scores on the target's labels, not used",
    }


@pytest.mark.parametrize("labelled", [True, False])
def test_the_page_says_that_labels_chose_nothing_or_that_there_are_none(tmp_path, labelled):
    write_report(make(tmp_path, labelled), Reporter(quiet=True))
    page = (tmp_path / REPORT_FILE).read_text("utf-8")
    section = re.search(r'<section id="adaptation">.*?</section>', page, re.DOTALL)[0]
    assert section.count("<figcaption>") == 4 + (3 if labelled else 2)  # planes, and curves
    assert ("nothing was chosen by them" in section) is labelled
    assert ("nobody has labelled it" in section) is not labelled
    assert ("not used" in section) is labelled
