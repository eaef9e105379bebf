"""Several runs from pretrained and several from random starts, compared pair by pair."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from surgery.study.pairs import Samples, Wish, compare_pair, find_basin, same_weights
from surgery.study.parts import Parts, plain
from surgery.study.subject import Subject, on_device, read_start
from surgery.train.reporting import Reporter

KINDS = {
    "P, P-T": "a pretrained start and what was trained from it",
    "P-T, P-T": "two runs from pretrained",
    "P-T, RI-T": "a run from pretrained and one from random",
    "RI-T, RI-T": "two runs from random",
    "RI, RI-T": "a random start and what was trained from it",
    "RI, RI": "two random starts",
}
"""Kinds of pairs, by the names of Neyshabur, Sedghi, Zhang 2020."""
UNTRAINED = ("RI, RI",)
"""Kinds of which nobody would walk from one to the other."""


@dataclass(frozen=True)
class Groups:
    """The runs that are compared."""

    pretrained: tuple[Subject, ...]
    random: tuple[Subject, ...]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """Where they and their starts lie."""

    def pairs(self) -> dict[str, list[tuple[Subject, Subject]]]:
        """Return all pairs of each kind that has some."""
        starts, kept = (
            [on_device(read_start(subject), self.device) for subject in subjects]
            for subjects in (self.random, self.pretrained)
        )
        found = {
            "P, P-T": list(zip(kept, self.pretrained, strict=True)),
            "P-T, P-T": list(itertools.combinations(self.pretrained, 2)),
            "P-T, RI-T": list(itertools.product(self.pretrained, self.random)),
            "RI-T, RI-T": list(itertools.combinations(self.random, 2)),
            "RI, RI-T": list(zip(starts, self.random, strict=True)),
            "RI, RI": list(itertools.combinations(starts, 2)),
        }
        return {kind: pairs for kind, pairs in found.items() if pairs}


def compare_groups(
    groups: Groups, samples: Samples, wish: Wish, parts: Parts, report: Reporter
) -> dict[str, Any]:
    """Compare all pairs of all kinds.

    Returns:
        `kinds`: a row for each kind with the number of its pairs and, as mean and deviation over them, CKA
        by stage, distance, kappa and barrier; `pairs`: each pair by itself; `basins`: of the runs from
        pretrained and of those from random, where there are two at least; `missing`: which lines and basins
        could not be measured, and why.

    References:
        Neyshabur, Sedghi, Zhang 2020, arXiv:2008.11687, sections 3.2 and 3.3.
    """
    every: list[dict[str, Any]] = []
    basins, missing = {}, {}
    plainly = Wish(wish.seed, wish.points, wish.bn, basin=0)
    for kind, pairs in groups.pairs().items():
        for first, second in pairs:
            found = compare_pair(first, second, samples, plainly, parts, report, kind not in UNTRAINED)
            every.append({"kind": kind, "first": first.label, "second": second.label, **found})
            if "line" in found["missing"]:
                missing[f"line of {first.label} and {second.label}"] = found["missing"]["line"]
    rows = [_summarise(kind, [row for row in every if row["kind"] == kind]) for kind in KINDS]
    for name, subjects in (("P-T", groups.pretrained), ("RI-T", groups.random)):
        if len(subjects) < 2 or not wish.basin:
            continue
        if same_weights(subjects):
            missing[f"basin of {name}"] = "these runs have the same weights"
        else:
            basins[name] = find_basin(list(subjects), samples.judged, wish, parts, report)
    kinds = plain([row for row in rows if row["pairs"]])
    return {"kinds": kinds, "pairs": every, "basins": basins, "missing": missing}


def _summarise(kind: str, pairs: list[dict[str, Any]]) -> dict[str, Any]:
    stages = list(pairs[0]["cka"] or {}) if pairs else []
    return {
        "kind": kind,
        "said": KINDS[kind],
        "pairs": len(pairs),
        "cka": {stage: _mean([pair["cka"][stage] for pair in pairs]) for stage in stages},
        "distance": _mean([_norm(pair["distance"]) for pair in pairs]),
        "kappa": _mean([pair["kappa"] for pair in pairs]),
        "barrier": _mean([pair["barrier"] for pair in pairs]),
    }


def _norm(distances: dict[str, float] | None) -> float | None:
    """Return the distance over all layers from that of each."""
    return None if distances is None else math.sqrt(sum(value**2 for value in distances.values()))


def _mean(values: Sequence[float | None]) -> dict[str, float] | None:
    """Return mean and deviation; None where one is missing."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    return {"mean": float(np.mean(known)), "deviation": float(np.std(known))}
