"""How good a model is for a domain without labels: criteria that choose a method and an epoch.

The higher, the better, of each of them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.preprocessing import StandardScaler

from surgery.adapt.observe import Floats, Observed

TEMPERATURE = 0.05
"""Of the neighbourhood's similarities."""
MOST_NEIGHBOURS = 2000
FOLDS = 5

Criterion = Callable[[Observed, Observed], float]
"""Of what was observed on the source's val and on the target."""


def source_score(source: Observed, target: Observed) -> float:
    """Return the main score on the source's val, 0–1: a model that is no good there is none here."""
    assert source.scores is not None
    return source.scores.main


def sureness(source: Observed, target: Observed) -> float:
    """Return minus the mean entropy of the answers on the target, as a share of the largest, −1–0.

    References:
        Morerio et al. 2018, arXiv:1711.10288, section 4 (entropy as a validation criterion).
    """
    return -target.unsure / float(np.log(len(target.frequencies)))


def information(source: Observed, target: Observed) -> float:
    """Return how much an answer on the target says: sure answers, as frequent as the source's labels.

    Minus the mean entropy, minus the divergence of the answers' frequencies from those of the source's
    labels, in nats. With labels of equal frequency it is the mutual information of image and answer, but
    for a constant; in a mask the classes are not equally frequent, and are not asked to be.

    References:
        Krause et al. 2010 (regularised information maximisation, with a class prior); Musgrave et al. 2022,
        arXiv:2208.07360 (as a validation criterion).
    """
    wanted = np.clip(source.truths, 1e-6, None)
    answered = np.clip(target.frequencies, 1e-12, None)
    return -target.unsure - float(np.sum(answered * np.log(answered / wanted)))


def density(source: Observed, target: Observed) -> float:
    """Return the soft neighbourhood density of the answers on the target, nats: do neighbours agree?

    References:
        Saito et al. 2021, arXiv:2108.10860, eq. 1–3.
    """
    shares = target.shares[:: -(-len(target.shares) // MOST_NEIGHBOURS)]
    if len(shares) < 2:
        return 0.0
    unit = shares / np.linalg.norm(shares, axis=1, keepdims=True)
    similar = unit @ unit.T / TEMPERATURE  # (m, m)
    np.fill_diagonal(similar, -np.inf)
    weights = np.exp(similar - similar.max(1, keepdims=True))
    weights /= weights.sum(1, keepdims=True)
    return float(-np.sum(weights * np.log(np.clip(weights, 1e-12, None)), axis=1).mean())


def embedded_validation(source: Observed, target: Observed) -> float:
    """Return minus the loss on the source's val, weighted as if its images were the target's, with a
    control variate.

    References:
        You et al. 2019, ICML (deep embedded validation), algorithm 1.
    """
    weights = density_ratio(source.embeddings, target.embeddings)
    weighted = weights * source.losses
    spread = float(np.var(weights))
    if spread < 1e-12:
        return -float(weighted.mean())
    slope = -float(np.cov(weighted, weights, ddof=0)[0, 1]) / spread
    return -(float(weighted.mean()) + slope * float(weights.mean()) - slope)


def density_ratio(source: Floats, target: Floats) -> Floats:
    """Return how much likelier each row of the source is in the target, (n,), by a classifier of both.

    Each domain counts one half for the classifier, whatever its size.
    """
    rows, domains = np.concatenate([source, target]), np.repeat([0, 1], [len(source), len(target)])
    likely = judge_domains(rows, domains)[: len(source)]
    likely = np.clip(likely, 1e-6, 1 - 1e-6)
    ratio: Floats = (likely / (1 - likely)).astype(np.float32)
    return ratio


def judge_domains(rows: Floats, domains: np.ndarray) -> np.ndarray:
    """Return the probability of domain 1 for each row, by a linear classifier that has not seen it, (n,)."""
    folds = min(FOLDS, int(np.bincount(domains).min()))
    rows = StandardScaler().fit_transform(rows)
    split = StratifiedKFold(folds, shuffle=True, random_state=0)
    judge = LogisticRegression(C=0.01, max_iter=200, class_weight="balanced")
    found: np.ndarray = cross_val_predict(judge, rows, domains, cv=split, method="predict_proba")[:, 1]
    return found


def proxy_distance(source: Floats, target: Floats) -> float:
    """Return the proxy A-distance of two sets of rows, 0–2: 0 where a classifier cannot tell them apart.

    References:
        Ben-David et al. 2007; Ganin et al. 2016, arXiv:1505.07818, section 5.1.5.
    """
    rows, domains = np.concatenate([source, target]), np.repeat([0, 1], [len(source), len(target)])
    wrong = (judge_domains(rows, domains) > 0.5) != domains
    error = (wrong[: len(source)].mean() + wrong[len(source) :].mean()) / 2
    return float(np.clip(2 * (1 - 2 * error), 0, 2))


CRITERIA: dict[str, Criterion] = {
    "information": information,
    "entropy": sureness,
    "density": density,
    "embedded": embedded_validation,
    "source": source_score,
}
"""What `--choose-by` may be, the default first."""


def measure(source: Observed, target: Observed) -> dict[str, float]:
    """Return every criterion by its name."""
    return {name: criterion(source, target) for name, criterion in CRITERIA.items()}
