"""Scores of an exported graph on labelled images, by the answers that the service gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from surgery.artifact.image import read_image
from surgery.artifact.manifest import Manifest
from surgery.artifact.session import Session, answer_image
from surgery.data.loaders import iterate
from surgery.data.table import Item
from surgery.data.targets import TargetSpec
from surgery.train.evaluate import Scores, make_scorer


def score_graph(
    session: Session,
    manifest: Manifest,
    items: Sequence[Item],
    targets: TargetSpec,
    progress: Callable[[int, int], None],
) -> Scores:
    """Return the scores of a graph.

    Args:
        session: The opened graph.
        manifest: What it takes and answers.
        items: Labelled images.
        targets: How their labels and masks map to the graph's classes.
        progress: Called with (images done, images in all).
    """
    scorer: Any = make_scorer(manifest.output)
    order = [[i] for i in range(len(items))]
    for done, loaded in enumerate(iterate(items, order, _load, workers=1)):
        item, image, mask = loaded[0]
        answer = answer_image(session, manifest, image)
        if item.mask is None:
            scorer.update(answer.logits, item.truth)
        else:
            scorer.update(answer.mask, targets.encode_mask(mask, str(item.mask.path)))
        progress(done + 1, len(items))
    scores: Scores = scorer.compute()
    return scores


def _load(item: Item) -> tuple[Item, Any, Any]:
    mask = None if item.mask is None else item.mask.read()
    return item, read_image(item.image), mask
