"""Scores of an exported graph on labelled images, by the answers that the service gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from surgery.artifact.image import read_image
from surgery.artifact.manifest import Manifest
from surgery.artifact.session import Session, answer_image
from surgery.data.loaders import iterate
from surgery.data.table import Item
from surgery.data.targets import TargetSpec
from surgery.train.evaluate import Scorer, Scores, make_scorer


@dataclass(frozen=True)
class ImageResult:
    """What a graph made of one labelled image; no mask is kept."""

    item: Item
    logits: np.ndarray | None
    """classify: shape (c,); else None."""
    counts: np.ndarray | None
    """segment: of each class the pixels that are right, true, and predicted, shape (3, c); else None."""


@dataclass(frozen=True)
class Scored:
    """What scoring a graph found."""

    scores: Scores
    images: list[ImageResult]
    """In the order of the items."""
    scorer: Scorer
    """Scores any choice of these images again."""


def score_graph(
    session: Session,
    manifest: Manifest,
    items: Sequence[Item],
    targets: TargetSpec,
    progress: Callable[[int, int], None],
) -> Scored:
    """Return the scores of a graph, and what it made of each image.

    Args:
        session: The opened graph.
        manifest: What it takes and answers.
        items: Labelled images.
        targets: How their labels and masks map to the graph's classes.
        progress: Called with (images done, images in all).
    """
    scorer: Any = make_scorer(manifest.output)
    results: list[ImageResult] = []
    order = [[i] for i in range(len(items))]
    for done, loaded in enumerate(iterate(items, order, _load, workers=1)):
        item, image, mask = loaded[0]
        answer = answer_image(session, manifest, image)
        if item.mask is None:
            scorer.update(answer.logits, item.truth)
            results.append(ImageResult(item, answer.logits, None))
        else:
            scorer.update(answer.mask, targets.encode_mask(mask, str(item.mask.path)))
            results.append(ImageResult(item, None, scorer.counts[-1]))
        progress(done + 1, len(items))
    return Scored(scorer.compute(), results, scorer)


def _load(item: Item) -> tuple[Item, Any, Any]:
    mask = None if item.mask is None else item.mask.read()
    return item, read_image(item.image), mask
