"""The answers on val that are most wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from surgery.artifact.answer import label_probabilities
from surgery.artifact.image import read_image
from surgery.artifact.manifest import OutputSpec
from surgery.artifact.session import answer_image, open_session
from surgery.deliver.calibrate import gather, image_losses
from surgery.deliver.package import Unsealed
from surgery.deliver.scoring import ImageResult
from surgery.report.pictures import data_uri, overlay_pair
from surgery.train.evaluate import mask_overlap

SHOWN = 20
LABEL_SIDE, MASK_SIDE = 256, 400
"""Longest side of a picture, in pixels."""
SHOWN_CLASSES = 4
"""Classes named beside one picture."""


@dataclass(frozen=True)
class Mistake:
    """One image whose answer is wrong."""

    index: int
    """Place of the image among the results."""
    badness: tuple[float, ...]
    """The larger, the worse."""
    lines: list[tuple[str, str]]
    """What is said of it: (`truth`, `ant 0.02`), …"""


def find_mistakes(results: list[ImageResult], output: OutputSpec) -> list[Mistake]:
    """Return every wrong answer, the worst first.

    Labels: by their loss, the negative log-likelihood of the truth at the model's temperature. Masks: by
    the mean IoU over the learnt classes that the image or its answer holds, and where it is the same by
    the pixels that are wrong.
    """
    if output.mask_values:
        found = [_judge_mask(k, result, output) for k, result in enumerate(results)]
    else:
        losses = image_losses(gather(results, output), output).tolist()
        judge = _judge_several if output.multilabel else _judge_one
        found = [
            Mistake(k, (loss,), lines)
            for k, (result, loss) in enumerate(zip(results, losses, strict=True))
            if (lines := judge(result, output))
        ]
    return sorted((one for one in found if one), key=lambda one: one.badness, reverse=True)


def _judge_one(result: ImageResult, output: OutputSpec) -> list[tuple[str, str]]:
    """Return what is said of an image with one label; nothing if the answer is right."""
    logits = np.asarray(result.logits)
    truth, answer = result.item.label, int(logits.argmax())
    names = _names(logits, output)
    return [] if truth == answer or truth is None else [("truth", names[truth]), ("answer", names[answer])]


def _judge_several(result: ImageResult, output: OutputSpec) -> list[tuple[str, str]]:
    """Return what is said of an image that may have several labels; nothing if each is right."""
    logits, true = np.asarray(result.logits), set(result.item.labels or ())
    found = set(np.flatnonzero(logits > 0).tolist())
    names = _names(logits, output)
    lines = [("truth", _some([output.classes[i] for i in sorted(true)]) or "none of the labels")]
    lines += [
        (what, _some([names[i] for i in sorted(labels)]))
        for what, labels in (("missed", true - found), ("wrong", found - true))
        if labels
    ]
    return lines if found != true else []


def _names(logits: np.ndarray, output: OutputSpec) -> list[str]:
    """Return each class with its probability."""
    shares = label_probabilities(logits, output)
    return [f"{name} {share:.3f}" for name, share in zip(output.classes, shares, strict=True)]


def _judge_mask(index: int, result: ImageResult, output: OutputSpec) -> Mistake | None:
    assert result.counts is not None, "a mask has counts"
    learnt = [i for i, name in enumerate(output.classes) if name != output.rest]
    iou, _ = mask_overlap(result.counts)
    seen = [i for i in learnt if result.counts[1:, i].any()]
    wrong = int(result.counts[1].sum() - result.counts[0].sum())
    if not seen or not wrong:
        return None
    mean = float(np.mean(iou[seen]))
    worst = sorted(seen, key=lambda i: iou[i])
    each = _some([f"{output.classes[i]} {iou[i]:.3f}" for i in worst])
    lines = [("IoU", each if len(learnt) == 1 else f"{mean:.3f} ({each})")]
    return Mistake(index, (-mean, wrong), [*lines, ("wrong pixels", f"{wrong:,}")])


def _some(names: list[str]) -> str:
    more = len(names) - SHOWN_CLASSES
    return ", ".join(names[:SHOWN_CLASSES]) + (f" and {more} more" if more > 0 else "")


def draw_mistakes(
    draft: Unsealed, mistakes: list[Mistake], progress: Callable[[int, int], None]
) -> list[dict[str, Any]]:
    """Return the cards of mistakes: file, lines, and pictures as (caption, source).

    A mask is answered once more here: none was kept when val was scored.
    """
    manifest, output = draft.manifest, draft.manifest.output
    graph = draft.folder / manifest.graphs.get(manifest.precision, manifest.graph)
    session = open_session(graph, "cpu") if output.mask_values else None
    cards = []
    for mistake in mistakes:
        item = draft.val.images[mistake.index].item
        image = read_image(item.image)
        pictures = []
        if session is None or item.mask is None:
            pictures.append(("", data_uri(image, LABEL_SIDE)))
        else:
            truth = draft.targets.encode_mask(item.mask.read(), str(item.mask.path))
            answer = answer_image(session, manifest, image).mask
            pair = overlay_pair(image, truth, answer, output, MASK_SIDE)  # type: ignore[arg-type]
            pictures += [
                (name, data_uri(part, MASK_SIDE))
                for name, part in zip(("truth", "answer"), pair, strict=True)
            ]
        small = max(image.shape[:2]) < LABEL_SIDE // 2
        file = draft.table.relative(item.image)
        cards.append({"file": file, "lines": mistake.lines, "pictures": pictures, "small": small})
        progress(len(cards), len(mistakes))
    return cards
