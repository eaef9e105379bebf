"""The parity gate: the exported graph must answer as the trained model does, from bytes to answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from surgery.artifact.answer import answer_labels, answer_mask, label_probabilities
from surgery.artifact.errors import ParityError
from surgery.artifact.image import prepare_image, read_image
from surgery.artifact.manifest import Manifest
from surgery.artifact.session import answer_image, open_session
from surgery.deliver.classifier import Classifier
from surgery.nets.assemble import Model

TOLERANCE = 1e-4
"""Largest difference of a logit, as a share of the largest logit (or of 1, if that is larger)."""
MAX_IMAGES = 16
"""Held-out images that are compared."""


def check_parity(
    model: Model,
    manifest: Manifest,
    graph: Path,
    images: Sequence[Path],
    classifier: Classifier | None = None,
) -> dict[str, Any]:
    """Compare the trained model with its exported graph on the CPU, image by image and as a batch.

    Args:
        model: The trained model in torch, in evaluation mode.
        manifest: What the version will say of input and output.
        graph: The exported ONNX file.
        images: Held-out image files; up to `MAX_IMAGES`, evenly spread, are taken.
        classifier: What answers where the model's logits are features. It is given the graph's own features,
            which are compared with the model's first: the bound of a tree makes a step of any difference.

    Returns:
        `images`, `max_difference` (largest |a − b| over all logits), `largest_logit`,
        `embedding_difference` (the same over the embeddings), `tolerance`,
        `answers_equal` (share of labels, or of mask pixels, that agree), `ties`, `passed` (True).

    Raises:
        ParityError: If a logit, a probability or a value of the embedding differs by more than the
            tolerance, a batch answers otherwise than its images, or an answer differs where no
            logits tie.
    """
    session = open_session(graph, "cpu")
    model = model.to("cpu").eval()
    chosen = [images[i] for i in spread(len(images), MAX_IMAGES)]
    worst = largest = apart = 0.0
    compared = differing = 0
    for path in chosen:
        image = read_image(path)
        prepared = prepare_image(image, manifest.input)
        eager, embedding = _run_eager(model, prepared)
        answer = answer_image(session, manifest, image)
        if classifier is not None:
            eager, embedding = classifier.decide(answer.embedding[None])[0], eager  # (1, d) -> (c,)
        bound = TOLERANCE * max(1.0, float(np.abs(eager).max()))
        worst = max(worst, _require_close(path, "logits", eager, answer.logits))
        apart = max(apart, _require_close(path, "embedding", embedding, answer.embedding))
        if manifest.task == "classify":
            shares = [label_probabilities(logits, manifest.output) for logits in (eager, answer.logits)]
            _require_close(path, "probabilities", *shares)
        if path == chosen[0]:
            pair, _ = session.run(np.stack([prepared, prepared]))  # (2, h, w, 3)
            _require_close(path, "logits of a batch", np.stack([eager, eager]), pair)
        largest = max(largest, float(np.abs(eager).max()))
        total, unequal = _compare_answers(eager, answer, image, manifest, bound, path)
        compared, differing = compared + total, differing + unequal
    return {
        "images": len(chosen),
        "device": "cpu",
        "max_difference": worst,
        "largest_logit": largest,
        "embedding_difference": apart,
        "tolerance": TOLERANCE,
        "answers_equal": 1.0 - differing / max(1, compared),
        "ties": differing,
        "passed": True,
    }


def _require_close(path: Path, what: str, eager: np.ndarray, exported: np.ndarray) -> float:
    """Return the largest difference.

    Raises:
        ParityError: If it is more than the tolerance, or not a number.
    """
    bound = TOLERANCE * max(1.0, float(np.abs(eager).max()))
    difference = float(np.abs(eager - exported).max()) if eager.shape == exported.shape else np.inf
    if not difference <= bound:
        raise ParityError(
            f"{path}: the exported graph's {what} differ by {difference:.3g}, more than {bound:.3g}",
            "The version was not stored. Train on with --device cpu and --precision fp32, and "
            "report the backbone and head if it happens again.",
        )
    return difference


def _run_eager(model: Model, prepared: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    image = torch.from_numpy(np.require(prepared, requirements=["C", "W"]))  # torch holds no read-only array
    with torch.inference_mode():
        logits, embedding = model(image[None])  # (1, h, w, 3)
    return logits[0].float().numpy(), embedding[0].float().numpy()


def _compare_answers(
    eager: np.ndarray, answer: Any, image: np.ndarray, manifest: Manifest, bound: float, path: Path
) -> tuple[int, int]:
    """Return how many labels or pixels were compared and how many differ by a tie.

    Raises:
        ParityError: If one differs that is no tie.
    """
    output = manifest.output
    if output.multilabel:
        apart = (eager > 0) != (answer.logits > 0)
        total, unequal = len(apart), int(apart.sum())
        wrong = int((apart & (np.abs(eager) > bound)).sum())
    elif manifest.task == "classify":
        same = answer_labels(eager, output)[0]["label"] == answer.labels[0]["label"]
        top = np.sort(eager)[::-1]
        tied = same or top[0] - top[1] <= 2 * bound
        total, unequal, wrong = 1, int(not same), int(not tied)
    else:
        size = (image.shape[1], image.shape[0])
        differs = answer_mask(eager, size, output) != answer.mask
        shifted = [answer_mask(_lean(eager, channel, bound), size, output) for channel in _leans(eager)]
        possible = np.any([mask == answer.mask for mask in shifted], axis=0)
        total, unequal, wrong = differs.size, int(differs.sum()), int((differs & ~possible).sum())
    if wrong:
        raise ParityError(
            f"{path}: the exported graph answers differently where no logits tie ({wrong} of {total})",
            "The version was not stored; report the backbone and head.",
        )
    return total, unequal


def _leans(logits: np.ndarray) -> range:
    return range(-1, logits.shape[0])


def _lean(logits: np.ndarray, channel: int, bound: float) -> np.ndarray:
    """Return logits in which a channel wins all ties (-1: in which all channels lose to zero)."""
    leaning = logits.copy()
    if channel < 0:
        leaning -= 2 * bound
    else:
        leaning[channel] += 2 * bound
    return leaning


def spread(count: int, most: int) -> list[int]:
    """Return up to `most` indices below `count`, evenly spread."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, most))}) if count else []
