"""Calibration: the temperature at which a classifier is as sure as it is often right."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from surgery.artifact.answer import label_probabilities
from surgery.artifact.manifest import OutputSpec
from surgery.deliver.scoring import ImageResult

BINS = 15
"""Bins of equal width over the probabilities 0–1 (Guo et al. use as many)."""
RANGE = (0.1, 10.0)
"""A best temperature outside says more of the images than of the model, and is not taken."""
LEAST_IMAGES = 10
"""Fewer images decide no temperature."""
LEAST_GAIN = 1e-6
"""Less is no minimum: the loss is flat, or still falls where the range ends."""


@dataclass(frozen=True)
class Labelled:
    """Logits of images and the truth about them."""

    logits: np.ndarray
    """Shape (n, c)."""
    truth: np.ndarray
    """Whether an image has a class, shape (n, c), bool."""

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.logits)


def gather(results: Sequence[ImageResult], output: OutputSpec) -> Labelled:
    """Return the logits and truths of scored images (classify)."""
    size = len(output.classes)
    logits = np.array([result.logits for result in results], np.float64).reshape(-1, size)
    truth = np.zeros(logits.shape, bool)
    for row, result in zip(truth, results, strict=True):
        row[np.asarray(result.item.truth, int)] = True
    return Labelled(logits, truth)


def calibrate(found: Labelled, output: OutputSpec) -> tuple[OutputSpec, dict[str, Any]]:
    """Fit a temperature; where the images decide none, the output keeps the one it has.

    Args:
        found: Logits of held-out images, and the truth.
        output: What the logits mean, for a new model with temperature 1.

    Returns:
        The output with its temperature, and for the manifest: `temperature`; `fitted`, and if it is false
        in `note` why; `n` images; `ece_before`, `ece_after`, `nll_before`, `nll_after`, where before is at
        temperature 1; `bins`, each with `low`, `high` and the `n`, `probability` and `share` of
        `before` and `after` (see `calibration_error`).
    """
    temperature, note = fit_temperature(found, output)
    cooled = output if temperature is None else replace(output, temperature=temperature)
    facts = {"temperature": cooled.temperature, "fitted": temperature is not None, "note": note}
    return cooled, facts | measure(found, cooled)


def measure(found: Labelled, output: OutputSpec) -> dict[str, Any]:
    """Return `n`, the errors and losses and the bins of `calibrate`, at the temperature of an output."""
    facts: dict[str, Any] = {"n": found.n}
    bins: list[dict[str, Any]] = [{"low": k / BINS, "high": (k + 1) / BINS} for k in range(BINS)]
    for when, at in (("before", replace(output, temperature=1.0)), ("after", output)):
        error, filled = calibration_error(found, at)
        facts |= {f"ece_{when}": error, f"nll_{when}": mean_nll(found, at)}
        for row, part in zip(bins, filled, strict=True):
            row[when] = part
    return facts | {"bins": bins}


def fit_temperature(found: Labelled, output: OutputSpec) -> tuple[float | None, str]:
    """Return the temperature of the least mean loss, or None and the reason why there is none.

    References:
        Guo et al. 2017, arXiv:1706.04599, section 4.2.
    """
    if found.n < LEAST_IMAGES:
        return None, f"too few images, {found.n} of {LEAST_IMAGES}"
    if all_right(found, output):
        return None, "every answer is right, so the loss falls without end as the temperature does"

    def loss(log_temperature: float) -> float:
        return mean_nll(found, replace(output, temperature=math.exp(log_temperature)))

    low, high = (math.log(bound) for bound in RANGE)
    # Convex in 1/T, so there is one minimum; the bounded search never returns a bound itself.
    best = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-5})
    if min(loss(low), loss(high)) < float(best.fun) + LEAST_GAIN:
        return None, f"the loss has no least value between temperatures {RANGE[0]:g} and {RANGE[1]:g}"
    return round(math.exp(best.x), 4), ""


def all_right(found: Labelled, output: OutputSpec) -> bool:
    """Tell whether no answer is wrong, whatever the temperature."""
    if output.multilabel:
        return bool(((found.logits > 0) == found.truth).all())
    return bool((found.logits.argmax(1) == found.truth.argmax(1)).all())


def mean_nll(found: Labelled, output: OutputSpec) -> float:
    """Return the mean negative log-likelihood of the truth."""
    return float(image_losses(found, output).mean())


def image_losses(found: Labelled, output: OutputSpec) -> np.ndarray:
    """Return the negative log-likelihood of each image's truth, (n,).

    Where an image may have several labels it is the mean over the classes.
    """
    cooled = found.logits / output.temperature
    if output.multilabel:
        several: np.ndarray = np.mean(np.logaddexp(0, cooled) - cooled * found.truth, axis=1)
        return several
    single: np.ndarray = np.logaddexp.reduce(cooled, axis=1) - cooled[found.truth]
    return single


def calibration_error(found: Labelled, output: OutputSpec) -> tuple[float, list[dict[str, Any]]]:
    """Return the expected calibration error, and the bins it is made of.

    Answers are put into `BINS` bins of equal width, open below and closed above, by their probability:
    of an image the most probable class, which is right or wrong; where an image may have several labels
    every class, which is there or not. The error is the mean over answers of |share − probability|, both
    being those of the answer's bin.

    Returns:
        The error, 0–1, and for each bin the number of answers `n`, their mean `probability` and the `share`
        of them that is right; both None in an empty bin.

    References:
        Naeini et al. 2015, AAAI; Guo et al. 2017, arXiv:1706.04599, eq. 3.
    """
    shares = label_probabilities(found.logits, output)
    if output.multilabel:
        probability, right = shares.ravel(), found.truth.ravel()  # (n, c) -> (n * c,)
    else:
        probability = shares.max(1)
        right = found.logits.argmax(1) == found.truth.argmax(1)
    inner = np.arange(1, BINS) / BINS
    index = np.digitize(probability, inner, right=True)
    bins: list[dict[str, Any]] = []
    error = 0.0
    for k in range(BINS):
        inside = index == k
        n = int(inside.sum())
        mean = float(probability[inside].mean()) if n else None
        share = float(right[inside].mean()) if n else None
        bins.append({"n": n, "probability": mean, "share": share})
        if mean is not None and share is not None:
            error += n / len(probability) * abs(share - mean)
    return error, bins
