"""The candidate of a shadow: it sees images that production has answered, behind everybody's back."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import cv2
import numpy as np

from surgery.artifact.answer import LabelAnswer, Mask, drawn_classes, mask_pixels
from surgery.artifact.image import decode_image
from surgery.artifact.manifest import OutputSpec
from surgery.artifact.session import Answer, answer_image

from .access import log
from .metrics import Metrics
from .rollout import Rollout

MAX_WAITING = 64
"""Images that may wait for candidates; further ones are dropped."""
MAX_WAITING_BYTES = 64 * 2**20
"""Memory that they may hold, as they were sent."""
LOWEST = 19
"""Nice value of the thread: it gets the time of a core that nobody else wants."""
SAME_MASK = 0.9
"""Overlap from which two masks agree."""


@dataclass(frozen=True)
class Said:
    """A whole answer in few bytes: decoded images and masks that wait would be without bound."""

    labels: list[LabelAnswer] | None
    mask: bytes | None
    """Index mask as PNG."""


@dataclass(frozen=True)
class Seen:
    """An image and what production answered."""

    rollout: Rollout
    data: bytes
    """As it was sent."""
    said: Said
    seconds: float
    """That production's network took."""

    @property
    def held_bytes(self) -> int:
        return len(self.data) + len(self.said.mask or b"")


class Shadow:
    """One thread of the lowest priority that gives images to candidates and compares the answers.

    Each candidate runs in this thread alone (its session has one), so that production's threads go before it.

    Args:
        metrics: What is counted.
        max_pixels: Largest image.
    """

    def __init__(self, metrics: Metrics, max_pixels: int) -> None:
        self._metrics = metrics
        self._max_pixels = max_pixels
        self._waiting: deque[Seen] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name="shadow", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """End the thread; what waits is forgotten, and a run is waited for so long at most."""
        with self._changed:
            self._stopped = True
            self._waiting.clear()
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def show(self, seen: Seen) -> None:
        """Put an image at the end of the queue, or drop it where that is full. Never blocks."""
        with self._changed:
            full = len(self._waiting) >= MAX_WAITING or self._bytes + seen.held_bytes > MAX_WAITING_BYTES
            if not full:
                self._waiting.append(seen)
                self._bytes += seen.held_bytes
                self._changed.notify()
        if full:
            seen.rollout.dropped()
            self._metrics.tried(seen.rollout, "dropped")

    def _work(self) -> None:
        with suppress(OSError):  # not every system has priorities of threads
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST)
        while True:
            with self._changed:
                while not self._waiting and not self._stopped:
                    self._changed.wait()
                if self._stopped:
                    return
                seen = self._waiting.popleft()
                self._bytes -= seen.held_bytes
            try:
                if not seen.rollout.stopped:
                    self._try(seen)
            except Exception:  # whatever was forgotten here, the thread must live
                log.exception("the shadow of %s failed", seen.rollout.name)

    def _try(self, seen: Seen) -> None:
        rollout, candidate = seen.rollout, seen.rollout.candidate
        image = decode_image(seen.data, "image", self._max_pixels)
        try:
            answer = answer_image(candidate.session, candidate.manifest, image)
        except Exception as error:
            rollout.failed("candidate", error)
            self._metrics.tried(rollout, "failed")
            return
        rollout.answered("candidate", answer.milliseconds["network"] / 1e3)
        rollout.answered("production", seen.seconds)
        differs = compare(seen, answer)
        rollout.compared(differs)
        self._metrics.tried(rollout, "differed" if differs else "agreed")


def compare(seen: Seen, answer: Answer) -> dict[str, Any] | None:
    """Return the two answers to an image where they do not agree, else None.

    Labels agree where both name the same: the most probable one, or of a model of several labels per image
    all that are present. Masks agree where their overlap is at least `SAME_MASK`.
    """
    before, after = seen.rollout.production.manifest.output, seen.rollout.candidate.manifest.output
    facts: dict[str, Any]
    if seen.said.mask is None:
        assert seen.said.labels is not None
        assert answer.labels is not None
        ours, theirs = _chosen(seen.said.labels, before), _chosen(answer.labels, after)
        if {row["label"] for row in ours} == {row["label"] for row in theirs}:
            return None
        facts = {"production": {"labels": ours}, "candidate": {"labels": theirs}}
    else:
        assert answer.mask is not None
        mask = cast(Mask, cv2.imdecode(np.frombuffer(seen.said.mask, np.uint8), cv2.IMREAD_UNCHANGED))
        overlap = mask_overlap(mask, before, answer.mask, after)
        if overlap >= SAME_MASK:
            return None
        facts = {
            "overlap": round(overlap, 4),
            "production": {"pixels": mask_pixels(mask, before)},
            "candidate": {"pixels": mask_pixels(answer.mask, after)},
        }
    return {"sha256": hashlib.sha256(seen.data).hexdigest(), **facts}


def mask_overlap(one: Mask, its: OutputSpec, other: Mask, their: OutputSpec) -> float:
    """Return in how many of the pixels that at least one mask draws both draw the same class, 0 to 1.

    Classes are the same by name; the rest is not drawn. It is the intersection over the union, over all drawn
    classes together; 1 where neither draws anything.

    Args:
        one: Index mask, shape (h, w).
        its: Names and values of its classes.
        other: Index mask, shape (h, w).
        their: Names and values of its classes.
    """
    values, others = dict(drawn_classes(its)), dict(drawn_classes(their))
    drawn = np.isin(one, list(values.values())) | np.isin(other, list(others.values()))  # (h, w)
    same = sum(
        np.count_nonzero((one == values[name]) & (other == others[name])) for name in values if name in others
    )
    union = np.count_nonzero(drawn)
    return same / union if union else 1.0


def _chosen(labels: list[LabelAnswer], output: OutputSpec) -> list[dict[str, Any]]:
    """Return the labels that an answer names, and their probabilities."""
    named = [label for label in labels if label.get("present")] if output.multilabel else labels[:1]
    return [{"label": label["label"], "probability": label["probability"]} for label in named]
