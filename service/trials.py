"""Questions to a model that has a candidate: who answers them, and who only looks on."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import TYPE_CHECKING

from starlette.background import BackgroundTask
from starlette.responses import Response

from .batcher import Batcher
from .metrics import Metrics
from .reply import Refusal
from .request import Question
from .rollout import Rollout, is_fault
from .settings import Settings
from .shadow import Seen, Shadow

if TYPE_CHECKING:
    from .predict import Answers
    from .served import Served

END_S = 5.0
"""Seconds that a run of a candidate is waited for when the service stops."""


class Trials:
    """Answers the questions of rollouts. Candidates have threads of their own: none can hold production up.

    Args:
        ask: Returns the answers of a version, run by a batcher.
        batcher: That of production.
        desks: Places of the requests that production answers; a candidate has as many of its own.
        cores: Where digests are computed.
        metrics: What is counted.
        settings: The limits of a request.
        lanes: Most runs of canaries side by side.
    """

    def __init__(
        self, ask: Callable[[Served, Question, Batcher, bool], Awaitable[Answers]], batcher: Batcher,
        desks: asyncio.Semaphore, cores: Executor, metrics: Metrics, settings: Settings, lanes: int,
    ) -> None:  # fmt: skip
        self._ask = ask
        self._production = batcher
        self._desks = desks
        self._seats = asyncio.Semaphore(settings.max_concurrency)
        self._candidates = Batcher(lanes)
        self._shadow = Shadow(metrics, settings.max_pixels)
        self._cores = cores
        self._metrics = metrics
        self._patience_s = settings.timeout_s / 2
        """What a candidate gets, so that production still has time for what the candidate leaves undone."""

    def start(self) -> None:
        self._candidates.start()
        self._shadow.start()

    def stop(self) -> None:
        self._candidates.stop(END_S)
        self._shadow.stop(END_S)

    @property
    def waiting(self) -> int:
        """Images that wait for a candidate that would answer them."""
        return self._candidates.waiting

    async def answer(self, rollout: Rollout, question: Question) -> Response:
        """Return the answer to a question that names the model of a rollout and no version.

        Raises:
            Refusal: As production does.
        """
        if rollout.plan.kind == "canary":
            return await self._answer_canary(rollout, question)
        async with self._desks:
            answers = await self._ask(rollout.production, question, self._production, True)
        # Run by the server when the last byte of the answer has been sent.
        answers.response.background = BackgroundTask(self._show, rollout, question, answers)
        return answers.response

    async def _show(self, rollout: Rollout, question: Question, answers: Answers) -> None:
        """Give the images of a question, if it is one of the share, to the candidate of a shadow."""
        if not rollout.chooses(await self._key(question)):
            return
        for upload, each in zip(question.images, answers.found, strict=True):
            if not isinstance(each, Refusal) and each.said is not None:
                seconds = each.milliseconds["inference"] / 1e3
                self._shadow.show(Seen(rollout, upload.data, each.said, seconds))

    async def _answer_canary(self, rollout: Rollout, question: Question) -> Response:
        since: float | None = time.perf_counter()
        if rollout.chooses(await self._key(question)):
            answers = await self._try(rollout, question)
            if answers is not None:
                return answers.response
            since = None  # what the candidate spent is not production's
        try:
            async with self._desks:
                answers = await self._ask(rollout.production, question, self._production, False)
        except Exception as error:
            if is_fault(error):
                rollout.failed("production", error)
            raise
        fault = _fault(answers)
        if fault is not None:
            rollout.failed("production", fault)
        else:
            rollout.answered("production", None if since is None else time.perf_counter() - since)
        return answers.response

    async def _try(self, rollout: Rollout, question: Question) -> Answers | None:
        """Return the candidate's answers; None where it has none to give."""
        since, clock = time.perf_counter(), asyncio.timeout(self._patience_s)
        try:
            async with clock, self._seats:
                answers = await self._ask(rollout.candidate, question, self._candidates, False)
            fault = _fault(answers)
        except Exception as error:
            fault = error
            if clock.expired():
                fault = TimeoutError(f"no answer within {self._patience_s:g} seconds")
        if fault is None:
            rollout.answered("candidate", time.perf_counter() - since)
            self._metrics.tried(rollout, "answered")
            return answers
        # What the client did wrong production will say too; what only this version lacks, it will answer.
        if is_fault(fault):
            rollout.failed("candidate", fault)
        self._metrics.tried(rollout, "failed" if is_fault(fault) else "refused")
        return None

    async def _key(self, question: Question) -> str:
        """Return what decides whose a question is: its key, else the sha256 of its (first) image."""
        if question.key:
            return question.key
        loop, data = asyncio.get_running_loop(), question.images[0].data
        return (await loop.run_in_executor(self._cores, hashlib.sha256, data)).hexdigest()


def _fault(answers: Answers) -> Exception | None:
    """Return an error among the answers that is the version's fault."""
    errors = (each for each in answers.found if isinstance(each, Refusal))
    return next((error for error in errors if is_fault(error)), None)
