"""What a comparison means for the next decision, in two sentences."""

from __future__ import annotations

from typing import Any

LOW_SHARE = 0.1
"""A barrier below this share of the way from the ends' loss to guessing is none."""
ALIKE = 0.6
"""Kappa from which two models err on mostly the same."""
UNLIKE = 0.4
"""Kappa up to which a vote of both is worth a try."""


def judge_pair(found: dict[str, Any], chance: float) -> list[str]:
    """Return two sentences about two models.

    Args:
        found: As `compare_pair` returns it.
        chance: The loss of guessing, nats.
    """
    said = [_judge_line(found, chance), _judge_mistakes(found)]
    return [sentence for sentence in said if sentence] or [_judge_features(found)]


def _judge_line(found: dict[str, Any], chance: float) -> str:
    line = found["line"]
    if line is None:
        return f"There is no line between them: {found['missing'].get('line', 'none was walked')}."
    points = line["points"]
    ends = (points[0]["loss"] + points[-1]["loss"]) / 2
    barrier = f"{line['barrier']:.3g} nats above a loss of {ends:.3g} at the ends"
    if line["barrier"] <= LOW_SHARE * max(chance - ends, 0.0):
        return (
            f"No barrier to speak of lies between them ({barrier}): they are in one basin, so the mean of "
            "their weights is worth a try, and another seed will teach little new."
        )
    return (
        f"A barrier lies between them ({barrier}): they are different solutions, so average their answers, "
        "never their weights."
    )


def _judge_mistakes(found: dict[str, Any]) -> str:
    facts = found["mistakes"]
    if facts is None:
        return f"Their mistakes were not compared: {found['missing'].get('kappa', '')}."
    counts = (
        f"{facts['both']:,} {facts['unit']} are answered wrongly by both, {facts['first']:,} and "
        f"{facts['second']:,} by one alone (kappa {facts['kappa']:.2f})"
    )
    if facts["first"] + facts["second"] == 0:
        return f"They err on the same: {counts}; either will do."
    if facts["kappa"] >= ALIKE:
        return f"They err on mostly the same: {counts}; a vote of both would gain little, more data would."
    if facts["kappa"] <= UNLIKE:
        return f"They err on different ones: {counts}; a vote of both is worth its cost."
    return f"They err on partly the same: {counts}; try a vote of both on val before paying for it."


def _judge_features(found: dict[str, Any]) -> str:
    cka = found["cka"] or {}
    return "CKA by stage: " + ", ".join(f"{stage} {value:.2f}" for stage, value in cka.items()) + "."


def judge_modules(rows: list[dict[str, Any]], bound: dict[str, Any]) -> list[str]:
    """Return two sentences about the criticality of modules.

    Args:
        rows: As `measure_modules` returns them, shallow to deep.
        bound: The model's `loss` and the `most` that it may be.
    """
    idle = [row for row in rows if not row["criticality"]]
    worst = max(rows, key=lambda row: row["criticality"])
    said = [
        f"{len(idle)} of {len(rows)} modules may each go back to where they began and the loss stays within "
        f"its bound ({bound['loss']:.3g}, at most {bound['most']:.3g} nats)"
        + (
            f": {_list([row['module'] for row in idle])}; try to freeze them next time, which trains faster."
            if idle
            else ": all have learnt something that is needed, so freeze none."
        )
    ]
    if worst["criticality"]:
        said.append(
            f"{worst['module']} is the most critical (μ {worst['criticality']:.3g}; at its start the loss is "
            f"{worst['rewound_loss']:.3g} nats): that is where training, and care with fewer bits, pays."
        )
    else:
        said.append("No module is critical alone: what was learnt is spread over several of them.")
    return said


UNMOVED = 0.995
"""CKA with its start from which a stage is said to see images as it did."""


def judge_passport(values: dict[str, Any]) -> list[str]:
    """Return up to two sentences about how far a version moved, and what to do with it next."""
    said = []
    if values["cka"] and values["criticality"]:
        stage = min(values["cka"], key=lambda name: values["cka"][name])
        rows = values["criticality"]["modules"]
        idle = [row for row in rows if not row["criticality"]]
        least = values["cka"][stage]
        moved = (
            f"{stage} changed most (CKA {least:.2f})" if least < UNMOVED else "no stage sees images otherwise"
        )
        said.append(
            f"Of what it began with, {moved}, and {len(idle)} of {len(rows)} modules may each be put back: "
            + ("most of it was transferred." if 2 * len(idle) >= len(rows) else "most of it was learnt anew.")
        )
    gap = values["gap"]
    if gap:
        clear = gap["low"] > 0
        said.append(
            f"It scores {abs(gap['value']):.3f} {'better' if gap['value'] >= 0 else 'worse'} on train than "
            f"on val ({gap['low']:+.3f} to {gap['high']:+.3f}): "
            + (
                "more data or stronger augmentation is the next thing to try."
                if clear
                else "that may be chance, so a longer or freer training may still help."
            )
        )
    return said or ["Little could be measured; name the data with --data to fill the rest in."]


def _list(names: list[str], most: int = 6) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def judge_groups(found: dict[str, Any]) -> list[str]:
    """Return two sentences about runs from pretrained and from random starts, and what was not measured."""
    rows = {row["kind"]: row for row in found["kinds"]}
    said = []
    kept, fresh = rows.get("P-T, P-T"), rows.get("RI-T, RI-T")
    if kept and fresh and kept["barrier"] and fresh["barrier"]:
        low, high = kept["barrier"]["mean"], fresh["barrier"]["mean"]
        if low < high:
            said.append(
                f"Runs from pretrained are parted by a barrier of {low:.3g} nats, runs from random by "
                f"{high:.3g}: what was transferred holds them closer together, so one or two seeds tell "
                "what the pretrained start can do."
            )
        else:
            said.append(
                f"Runs from pretrained are parted by a barrier of {low:.3g} nats, runs from random by "
                f"{high:.3g}: here the start does not hold them together, so report several seeds."
            )
    if kept and fresh and kept["cka"]:
        gaps = {
            stage: kept["cka"][stage]["mean"] - fresh["cka"][stage]["mean"]
            for stage in kept["cka"]
            if kept["cka"][stage] and fresh["cka"][stage]
        }
        if gaps:
            name = max(gaps, key=lambda stage: gaps[stage])
            said.append(
                f"The start shows most at {name}: CKA {kept['cka'][name]['mean']:.2f} between runs from "
                f"pretrained, {fresh['cka'][name]['mean']:.2f} between runs from random; what is reused is "
                "there."
                if gaps[name] > 0
                else "No stage of the runs from pretrained is more alike than that of the runs from random: "
                "nothing shows that features are reused."
            )
    if not said:
        said = ["Give two runs from pretrained and two from random, or more, to tell them apart."]
    return said + [f"Not measured: the {name}, since {why}." for name, why in found["missing"].items()]
