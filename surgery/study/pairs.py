"""Two models compared in everything that can be compared, each part kept on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from surgery.artifact.errors import ConfigError
from surgery.study.basin import RADIUS_SHARE, probe_basin
from surgery.study.line import walk_line
from surgery.study.measure import measure, unit_of
from surgery.study.mistakes import compare_mistakes
from surgery.study.parts import Parts, plain, watched
from surgery.study.sample import Sample, hold
from surgery.study.similarity import compare_stages, measure_distances
from surgery.study.subject import Subject, answers, read_random, same_backbone, same_network
from surgery.train.reporting import Reporter

FAR_SEED = 10_007
"""Added to the study's seed for the random start that says what is far: no run's own start."""


@dataclass(frozen=True)
class Wish:
    """How two models are compared."""

    seed: int = 0
    """Of the random start that distances are measured against, and of the basin's points."""
    points: int = 11
    """Places measured on the line between them."""
    bn: str = "keep"
    """`reestimate`: batch norm is measured anew on training images at every place of the line."""
    basin: int = 10
    """Points drawn for each condition of a basin; 0: none is looked for."""


@dataclass(frozen=True)
class Samples:
    """The images of a comparison."""

    judged: Sample
    """Where features, mistakes and loss are measured."""
    training: Sample | None = None
    """Where batch norm is measured anew."""


def check_comparable(first: Subject, second: Subject) -> dict[str, str]:
    """Return which parts cannot be compared and why, by name.

    Raises:
        ConfigError: If nothing can.
    """
    a, b = first.manifest, second.manifest
    backbones = f"{a.backbone['name']} and {b.backbone['name']}"
    missing: dict[str, str] = {}
    if not same_backbone(first, second):
        reason = f"their backbones differ ({backbones}, or cut at another stage)"
        missing |= dict.fromkeys(("cka", "distance", "line", "basin"), reason)
    elif not same_network(first, second):
        missing |= dict.fromkeys(("line", "basin"), "their heads differ")
    if a.output.classes != b.output.classes or a.task != b.task:
        reason = f"they answer other classes ({_some(a.output.classes)}; {_some(b.output.classes)})"
        missing |= dict.fromkeys(("kappa", "line", "basin"), reason)
    if a.input != b.input:
        reason = "they take other inputs"
        missing |= dict.fromkeys(("cka", "kappa", "line", "basin"), reason)
    if not (answers(first) and answers(second)):
        reason = "a classifier of scikit-learn answers, which has no weights on a line"
        missing |= dict.fromkeys(("kappa", "line", "basin"), reason)
    if {"cka", "distance", "kappa"} <= set(missing):
        raise ConfigError(
            f"{first.label} and {second.label} have nothing to compare: {missing['cka']}, and "
            f"{missing['kappa']}",
            "Name two models of one backbone, or two that answer the same classes.",
        )
    return missing


def compare_pair(
    first: Subject,
    second: Subject,
    samples: Samples,
    wish: Wish,
    parts: Parts,
    report: Reporter,
    walk: bool = True,
) -> dict[str, Any]:
    """Compare two models; what earlier runs have finished is read and not computed.

    Args:
        first, second: The models.
        samples: The images.
        wish: How.
        parts: Where finished parts are kept.
        report: Where progress is shown.
        walk: Measure the line between them.

    Returns:
        `cka` {stage: x}, `distance` and `relative` {layer: x}, `mistakes`, `kappa`, `line`, `barrier`,
        `basin` and `missing`: what could not be compared, and why. What is missing is null.

    Raises:
        ConfigError: If nothing can be compared.
    """
    missing = check_comparable(first, second)
    inputs = _name_both(first, second) | {"data": samples.judged.digest}
    name = f"{first.label} and {second.label}"
    found: dict[str, Any] = dict.fromkeys(
        ("cka", "distance", "relative", "mistakes", "kappa", "line", "barrier", "basin")
    )
    if "cka" not in missing:
        with report.task(f"CKA of {name}") as task:
            found["cka"] = parts.take(
                "cka", inputs, lambda: compare_stages(first, second, samples.judged, watched(task))
            )
    if "distance" not in missing:
        found |= find_distances(first, second, wish.seed, parts)
    if "kappa" not in missing:
        found["mistakes"] = parts.take("mistakes", inputs, lambda: _mistakes(first, second, samples.judged))
        found["kappa"] = found["mistakes"]["kappa"]
    if "line" not in missing and walk:
        try:
            found["line"] = _line(first, second, samples, wish, parts, report, inputs)
            found["barrier"] = found["line"]["barrier"]
        except ConfigError as error:
            missing["line"] = error.message
    if "basin" not in missing and wish.basin and not same_weights([first, second]):
        found["basin"] = find_basin([first, second], samples.judged, wish, parts, report)
    return plain({**found, "missing": missing})  # type: ignore[no-any-return]


def find_distances(first: Subject, second: Subject, seed: int, parts: Parts) -> dict[str, Any]:
    """Return `distance` and `relative` of two models of one backbone; no image is needed."""
    far = seed + FAR_SEED

    def measure_all() -> dict[str, Any]:
        return measure_distances(first, second, read_random(first, far), not same_network(first, second))

    apart = parts.take("distance", _name_both(first, second) | {"random": far}, measure_all)
    return {"distance": apart["absolute"], "relative": apart["relative"]}


def _name_both(first: Subject, second: Subject) -> dict[str, Any]:
    return {"first": first.digest, "second": second.digest}


def same_weights(subjects: Sequence[Subject]) -> bool:
    """Tell whether some models of one network have the same weights, so that no basin lies between them."""
    first, *others = (subject.state for subject in subjects)
    names = [name for name, _ in subjects[0].model.named_parameters()]
    return all(first[name].equal(other[name]) for other in others for name in names)


def check_group(subjects: Sequence[Subject]) -> None:
    """Refuse runs that cannot all be compared with each other in everything.

    Raises:
        ConfigError: With all that differ from the first, and in what.
    """
    wrong = []
    for each in subjects[1:]:
        try:
            reasons = list(dict.fromkeys(check_comparable(subjects[0], each).values()))
        except ConfigError as error:
            reasons = [error.message]
        if reasons:
            wrong.append(f"{each.label} is not of one kind with {subjects[0].label}: {'; '.join(reasons)}")
    if wrong:
        raise ConfigError(
            "\n".join(wrong),
            "Name runs of one network on one task, with the same classes and the same input.",
        )


def find_basin(
    subjects: list[Subject], sample: Sample, wish: Wish, parts: Parts, report: Reporter
) -> dict[str, Any]:
    """Return the three conditions of a basin on the hull of some models of one network, as plain values."""
    inputs = {"models": [subject.digest for subject in subjects], "data": sample.digest}
    states = [subject.state for subject in subjects]
    with report.task(f"basin of {', '.join(subject.label for subject in subjects)}") as task:
        return parts.take(
            "basin",
            inputs | {"seed": wish.seed, "points": wish.basin, "radius": RADIUS_SHARE},
            lambda: probe_basin(
                subjects[0].model, states, sample, wish.seed, watched(task), wish.basin
            ).to_dict(),
        )


def _line(
    first: Subject,
    second: Subject,
    samples: Samples,
    wish: Wish,
    parts: Parts,
    report: Reporter,
    inputs: dict[str, Any],
) -> dict[str, Any]:
    training = samples.training if wish.bn == "reestimate" else None
    known = inputs | {"points": wish.points, "bn": training.digest if training else wish.bn}
    with report.task(f"the line from {first.label} to {second.label}") as task:
        return parts.take(
            "line",
            known,
            lambda: walk_line(
                first.model, first.state, second.state, samples.judged, watched(task), wish.points, training
            ).to_dict(),
        )


def _mistakes(first: Subject, second: Subject, sample: Sample) -> dict[str, Any]:
    mine, theirs = (measure(each.model, hold(each.model, sample, 0)) for each in (first, second))
    compared = compare_mistakes(mine.right, theirs.right, unit_of(sample.targets.output))
    return compared.to_dict() | {
        "losses": [mine.loss, theirs.loss],
        "errors": [mine.error, theirs.error],
    }


def _some(names: tuple[str, ...], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
