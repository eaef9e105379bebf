"""A question answered: find the model, decode, infer, reply."""

from __future__ import annotations

import asyncio
import base64
import functools
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.responses import JSONResponse, Response

from surgery.artifact.answer import Mask, encode_mask_png
from surgery.artifact.errors import ImageError, SurgeryError
from surgery.artifact.graph import available_cores
from surgery.artifact.image import Pixels, decode_image, decode_size, prepare_image
from surgery.artifact.session import read_logits

from .access import log
from .batcher import Batcher, Run
from .budget import PixelBudget, Share
from .metrics import Metrics
from .reply import Picture, Refusal, describe_answer, describe_model
from .request import Question, Upload, Wish
from .runtime import Runtime
from .served import Served
from .shadow import Said
from .spool import Spool
from .trials import Trials

T = TypeVar("T")


FEW_LOGITS = 256
"""So many become labels faster than another thread can be asked to do it."""


@dataclass(frozen=True)
class Read:
    """A decoded image on its way through the network."""

    image: Pixels
    pixels: int
    """Of the image as it was sent."""
    decode_s: float
    prepare_s: float
    run: Future[Run]


@dataclass(frozen=True)
class Finished:
    """What was made of a run of the network."""

    body: dict[str, Any]
    picture: Picture | None
    said: Said | None
    novelty: float | None
    """None where the version cannot tell it."""
    seconds: float


@dataclass(frozen=True)
class Answered:
    """The answer to one image, and the milliseconds of each step."""

    body: dict[str, Any]
    picture: Picture | None
    milliseconds: dict[str, float]
    said: Said | None = None
    """The whole answer in few bytes, where a candidate looks on."""


@dataclass(frozen=True)
class Answers:
    """The response to a question, and what it was made of."""

    response: Response
    found: tuple[Answered | Refusal, ...]
    """An answer or an error for each image, in their order."""


class Answerer:
    """Answers questions: images are decoded on all cores, and networks run as each version learnt to.

    Args:
        runtime: Where versions are found.
        metrics: What is counted.
    """

    def __init__(self, runtime: Runtime, metrics: Metrics) -> None:
        self.runtime = runtime
        self.metrics = metrics
        lanes = min(runtime.settings.max_lanes, available_cores())
        self.batcher = Batcher(lanes)
        self._pixels = PixelBudget(max(runtime.settings.max_pixels, runtime.settings.max_pixels_held))
        self._cores = ThreadPoolExecutor(available_cores(), "cores")
        self.spool = Spool(runtime.settings, metrics)
        self._desks = asyncio.Semaphore(runtime.settings.max_concurrency)
        """Places of the requests whose images are decoded and answered; a body on its way takes none."""
        self.trials = Trials(
            self._ask, self.batcher, self._desks, self._cores, metrics, runtime.settings, lanes
        )
        self._loading = ThreadPoolExecutor(1, "loading")
        self._finding = 0
        """Requests that wait for a version to be loaded."""

    def start(self) -> None:
        self.batcher.start()
        self.trials.start()
        self.spool.start()

    def stop(self) -> None:
        self.batcher.stop()
        self.trials.stop()
        self.spool.stop()
        self._cores.shutdown()
        self._loading.shutdown(cancel_futures=True)

    @property
    def waiting(self) -> int:
        """Images that wait for a network."""
        return self.batcher.waiting + self.trials.waiting

    async def answer(self, question: Question) -> Response:
        """Return the answer to a question.

        Raises:
            Refusal: If there is no model for it, or its only image is none.
        """
        served = await self._find(question.model)
        rollout = self.runtime.rollout_of(question.model, served)
        if rollout is not None:
            return await self.trials.answer(rollout, question)
        async with self._desks:
            return (await self._ask(served, question, self.batcher)).response

    async def _find(self, text: str | None) -> Served:
        """Return the version that is meant; whoever waits for one to be loaded takes no place meanwhile.

        Raises:
            Refusal: If there is none, or as many wait already as may be at work.
        """
        served = self.runtime.find_loaded(text)
        if served is None:
            served = await _in(self._cores, self.runtime.find_kept, text)
        if served is not None:
            return served
        bound = self.runtime.settings.max_concurrency
        if self._finding >= bound:
            message = f"{bound} requests wait for a version to be loaded already, which is the bound"
            raise Refusal(429, "too_many_requests", message, "Try again later.", {"Retry-After": "1"})
        self._finding += 1
        try:
            return await _in(self._loading, self.runtime.find, text)
        finally:
            self._finding -= 1

    async def _ask(
        self, served: Served, question: Question, batcher: Batcher, watched: bool = False
    ) -> Answers:
        """Return what a version answers to a question, run by a batcher; `watched` by a candidate.

        Raises:
            Refusal: If it has no such answer, or the only image is none.
        """
        if question.wish.explain and not served.explains:
            message = (
                f"{served.manifest.name}@{served.manifest.version} has no class activation maps in its graph"
            )
            raise Refusal(422, "cannot_explain", message, "Ask without explain, or export the model again.")
        gathered = await asyncio.gather(
            *(
                self._answer_image(served, upload, question.wish, batcher, watched)
                for upload in question.images
            ),
            return_exceptions=True,
        )
        found: list[Answered | Refusal] = []
        for each in gathered:
            if isinstance(each, BaseException) and not isinstance(each, Refusal):
                raise each
            found.append(each)
        if len(found) > 1:
            return Answers(_reply_to_several(served, question.images, found), tuple(found))
        (only,) = found
        if isinstance(only, Refusal):
            raise only
        return Answers(_reply_to_one(served, only), (only,))

    async def _answer_image(
        self, served: Served, upload: Upload, wish: Wish, batcher: Batcher, watched: bool
    ) -> Answered:
        mapped = wish.explain and served.manifest.task == "classify"  # masks are maps already
        try:
            with self._pixels.share() as share, batcher.expecting():
                read = functools.partial(self._read, served, upload, batcher, mapped, share)
                # One call to another thread where there is room; and an image need not come back from there
                # to go to the network.
                found = await self._in_cores(read)
                if not isinstance(found, Read):
                    await share.take(found)
                    found = await self._in_cores(read)
                    assert isinstance(found, Read)
                run = await asyncio.wrap_future(found.run)
                finish = functools.partial(_finish, served, found.image, run, wish, watched)
                small = run.logits.ndim == 1 and run.logits.size <= FEW_LOGITS and not wish.explain
                done = finish() if small else await _in(self._cores, finish)
        except ImageError as error:
            raise Refusal.of(error) from error
        except SurgeryError as error:
            log.error("%s@%s cannot answer: %s", *served.key, error.message, exc_info=error)
            raise Refusal.internal() from error
        seconds = {
            "decode": found.decode_s,
            "preprocess": found.prepare_s,
            "queue": run.queue_s,
            "inference": run.inference_s,
            "postprocess": done.seconds,
        }
        self.metrics.answered(served, found.pixels, run.batch, seconds, done.novelty)
        self.spool.offer(served.manifest.name, upload.data, done.novelty)
        milliseconds = {step: round(value * 1e3, 3) for step, value in seconds.items()}
        return Answered(done.body, done.picture, milliseconds, done.said)

    async def _in_cores(self, read: Callable[[], Read | int]) -> Read | int:
        job = self._cores.submit(read)
        try:
            return await asyncio.wrap_future(job)
        except asyncio.CancelledError:
            job.add_done_callback(_forget)  # a thread cannot be stopped, but what it began can
            raise

    def _read(
        self, served: Served, upload: Upload, batcher: Batcher, mapped: bool, share: Share
    ) -> Read | int:
        """Decode and prepare an image and hand it on to the network; return its pixels if it may not be held.

        Not on the event loop: even a header can be made to take long.
        """
        most = self.runtime.settings.max_pixels
        width, height = decode_size(upload.data, "image", most)
        pixels = width * height
        if not share.pixels and not share.take_now(pixels):
            return pixels
        start = time.perf_counter()
        image = decode_image(upload.data, "image", most)
        decoded = time.perf_counter()
        prepared = prepare_image(image, served.manifest.input)
        done = time.perf_counter()
        if share.closed:  # whoever asked has gone
            return pixels
        return Read(image, pixels, decoded - start, done - decoded, batcher.submit(served, prepared, mapped))


async def _in(pool: ThreadPoolExecutor, call: Callable[..., T], *arguments: Any) -> T:
    return await asyncio.get_running_loop().run_in_executor(pool, call, *arguments)


def _forget(job: Future[Read | int]) -> None:
    """Take the run of an image that nobody waits for any more out of the queue."""
    if job.cancelled() or job.exception() is not None:
        return
    found = job.result()
    if isinstance(found, Read):
        found.run.cancel()


def _finish(served: Served, image: Pixels, run: Run, wish: Wish, watched: bool) -> Finished:
    start = time.perf_counter()
    labels, mask = read_logits(run.logits, (image.shape[1], image.shape[0]), served.manifest)
    novelty = None if served.gauge is None else served.gauge.novelty(run.embedding)
    body, picture = describe_answer(served.manifest, image, run, labels, mask, wish)
    if picture is None:
        body["novelty"] = novelty
    said = Said(labels, None if mask is None else _mask_png(mask, body)) if watched else None
    return Finished(body, picture, said, novelty, time.perf_counter() - start)


def _mask_png(mask: Mask, body: Mapping[str, Any]) -> Picture:
    """Return a mask as PNG, which most answers hold already."""
    return base64.b64decode(body["mask"]) if "mask" in body else encode_mask_png(mask)


def _reply_to_one(served: Served, only: Answered) -> Response:
    headers = _headers(served, only.milliseconds)
    if only.picture is not None:
        return Response(only.picture, media_type="image/png", headers=headers)
    body = {**describe_model(served), **only.body, "milliseconds": only.milliseconds}
    return JSONResponse(body, headers=headers)


def _reply_to_several(
    served: Served, uploads: tuple[Upload, ...], found: list[Answered | Refusal]
) -> Response:
    """Answer several images: an answer or an error for each, in their order."""
    results: list[dict[str, Any]] = []
    total: dict[str, float] = {}
    for upload, each in zip(uploads, found, strict=True):
        if isinstance(each, Refusal):
            results.append({"file": upload.name, "error": each.body()})
        else:
            results.append({"file": upload.name, **each.body, "milliseconds": each.milliseconds})
            for step, value in each.milliseconds.items():
                total[step] = round(total.get(step, 0.0) + value, 3)
    body = {**describe_model(served), "results": results, "milliseconds": total}
    return JSONResponse(body, headers=_headers(served, total))


def _headers(served: Served, milliseconds: Mapping[str, float]) -> dict[str, str]:
    """Return who answered, and the times (W3C Server Timing), whatever form the answer has."""
    facts = describe_model(served)
    who = {f"X-Surgery-{key.capitalize()}": str(facts[key]) for key in ("model", "version", "sha256")}
    times = ", ".join(f"{step};dur={value:g}" for step, value in milliseconds.items())
    return {**who, "Server-Timing": times}
