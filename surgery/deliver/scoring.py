"""Scores of an exported graph on labelled images, by the answers that the service gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from surgery.artifact.image import read_image
from surgery.artifact.manifest import Manifest
from surgery.artifact.session import Answer, Session, answer_image
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
    embedding: np.ndarray
    """Shape (d,)."""


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
    scoring = Scoring(manifest, targets)
    order = [[i] for i in range(len(items))]
    for done, loaded in enumerate(iterate(items, order, load_item, workers=1)):
        item, image, mask = loaded[0]
        scoring.add(item, answer_image(session, manifest, image), mask)
        progress(done + 1, len(items))
    return scoring.finish()


class Scoring:
    """The scores of a graph while its answers come in, one image after the other."""

    def __init__(self, manifest: Manifest, targets: TargetSpec) -> None:
        self.targets = targets
        self.scorer: Any = make_scorer(manifest.output)
        self.results: list[ImageResult] = []

    def add(self, item: Item, answer: Answer, mask: Any) -> None:
        """Count an image: what it is, what was answered, and its mask as the file holds it, or None."""
        if item.mask is None:
            self.scorer.update(answer.logits, item.truth)
            self.results.append(ImageResult(item, answer.logits, None, answer.embedding))
        else:
            self.scorer.update(answer.mask, self.targets.encode_mask(mask, str(item.mask.path)))
            counts = self.scorer.counts[-1]
            self.results.append(ImageResult(item, None, counts, answer.embedding))

    def finish(self) -> Scored:
        """Return what was found."""
        return Scored(self.scorer.compute(), self.results, self.scorer)


def load_item(item: Item) -> tuple[Item, Any, Any]:
    """Return an item, its image (h, w, 3) and its mask as the file holds it, or None."""
    mask = None if item.mask is None else item.mask.read()
    return item, read_image(item.image), mask
