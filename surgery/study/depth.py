"""The criticality of every module of a model, and of its run's checkpoints, each part kept on disk."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from surgery.artifact.errors import ConfigError
from surgery.study.criticality import (
    ALPHAS,
    DRAWS,
    EPSILON,
    SIGMAS,
    Prefixes,
    find_criticality,
    set_bound,
    trained_modules,
)
from surgery.study.modules import State
from surgery.study.parts import Parts, digest_state
from surgery.study.sample import Sample
from surgery.study.subject import Subject, answers, on_device, read_checkpoint, same_network
from surgery.train.interrupt import raise_if_requested
from surgery.train.reporting import Reporter


@dataclasses.dataclass(frozen=True)
class Search:
    """How criticality is measured."""

    epsilon: float = EPSILON
    """How much of the way from the model's loss to that of guessing the loss may rise."""
    seeds: int = 1
    """How often it is measured with other noise."""
    seed: int = 0
    """Of the first noise; the others follow it."""
    draws: int = DRAWS
    """Noises whose losses are averaged in each."""


def check_rewindable(subject: Subject, start: Subject) -> None:
    """Refuse a model that has no way back to its start.

    Raises:
        ConfigError: A classifier answers, or the start has another head.
    """
    if not answers(subject):
        raise ConfigError(
            f"{subject.label}: a classifier of scikit-learn answers; its backbone never moved",
            "Take a model that was trained by steps: --strategy full, partial, gradual, frozen or random.",
        )
    if not same_network(subject, start):
        raise ConfigError(
            f"{subject.label}: what it began with has other layers than it ended with",
            "Take the version itself, not one that was made from it.",
        )


def measure_modules(
    subject: Subject, initial: State, sample: Sample, search: Search, parts: Parts, report: Reporter
) -> dict[str, Any]:
    """Return the criticality of every module of one model, as plain values.

    Args:
        subject: The trained model.
        initial: Weights that its training began with.
        sample: Training images.
        search: How.
        parts: Where finished parts are kept.
        report: Where progress is shown.

    Returns:
        `loss`, `error` and `most` of the model, and `modules`: a row for each, shallow to deep. Where there
        are several seeds, `criticality` is their median, `low` and `high` the extremes.
    """
    model, final = subject.model, subject.state
    known = {"model": subject.digest, "data": sample.digest, "epsilon": search.epsilon}
    known |= {"start": digest_state(initial)}
    bound = set_bound(model, final, sample, search.epsilon)
    prefixes = Prefixes(model, final, sample)
    modules = trained_modules(model)
    rows = []
    with report.task(f"criticality of {subject.label}") as task:
        for k, module in enumerate(modules):
            tried = []
            for seed in range(search.seed, search.seed + search.seeds):
                inputs = known | {"module": module.name, "seed": seed, "draws": search.draws}
                inputs |= {"alphas": ALPHAS, "sigmas": SIGMAS}

                def find(module: Any = module, seed: int = seed) -> dict[str, Any]:
                    return find_criticality(
                        model, module, initial, final, prefixes, bound, seed, draws=search.draws
                    ).to_dict()

                tried.append(parts.take("criticality", inputs, find))
                raise_if_requested()
            rows.append(_middle(tried))
            task.update(k + 1, len(modules))
    return dataclasses.asdict(bound) | {"modules": rows}


def _middle(tried: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the row of the median over seeds, with the extremes beside it."""
    values = [row["criticality"] for row in tried]
    order = int(np.argsort(values, kind="stable")[(len(values) - 1) // 2])
    return {**tried[order], "low": min(values), "high": max(values)}


def measure_checkpoints(
    subject: Subject,
    checkpoints: Sequence[Path],
    initial: State,
    sample: Sample,
    search: Search,
    parts: Parts,
    report: Reporter,
) -> list[dict[str, Any]]:
    """Return the criticality of every module at each checkpoint of a run, the earliest first."""
    found = []
    for path in checkpoints:
        then = on_device(read_checkpoint(path, subject.stored), next(subject.model.parameters()).device)
        epoch = int(path.stem.split("-")[1])
        facts = measure_modules(then, initial, sample, search, parts, report)
        found.append({"epoch": epoch, **facts})
    return found
