"""The BentoML service: its routes, and nothing else."""

from __future__ import annotations

import asyncio
import gc
import json
import os
from pathlib import Path
from typing import Any

# Read by BentoML when it starts: nothing is reported to anybody about who serves what.
os.environ["BENTOML_DO_NOT_TRACK"] = "True"

import bentoml
from bentoml._internal.utils.analytics import usage_stats
from bentoml.exceptions import BentoMLConfigException
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from surgery.artifact.errors import ConfigError

from .access import log, start_log
from .limits import Guard, describe
from .memory import return_large_blocks
from .metrics import Metrics
from .openapi import describe_interface
from .predict import Answerer
from .reply import Refusal
from .request import Question, Upload, Wish, read_question
from .runtime import Runtime
from .settings import Settings, read_settings, read_tokens
from .web import page, seal

usage_stats.do_not_track.cache_clear()  # `bentoml serve` asked before this module could say no


class Building:
    """Everything of one service that lives as long as its process.

    Args:
        settings: What the operator has set.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.locked = bool(read_tokens(settings))
        self.runtime = Runtime(settings)
        self.guard: Guard | None = None
        self.metrics = Metrics(lambda: self.answerer.waiting, lambda: self.guard.at_work if self.guard else 0)
        self.answerer = Answerer(self.runtime, self.metrics)

    def start(self) -> None:
        start_log(self.settings.log_format)
        return_large_blocks()
        if not self.locked:
            log.info("SURGERY_TOKENS names no token: whoever reaches this address may ask")
        self.runtime.start()
        self.answerer.start()
        # Loaded models live as long as the process: no collection has to walk through them again.
        gc.collect()
        gc.freeze()

    def stop(self) -> None:
        self.runtime.stop()
        self.answerer.stop()

    async def predict(self, request: Request) -> Response:
        """Answer POST /predict."""
        try:
            question = await read_question(request, self.settings.max_images)
            return await self.answerer.answer(question)
        except Refusal as refusal:
            return refusal.response()

    async def predict_file(self, image: Path, model: str | None) -> dict[str, Any]:
        """Answer a call from within the process.

        Raises:
            Refusal: As a request would be refused.
        """
        upload = Upload(image.name, await asyncio.to_thread(image.read_bytes))
        response = await self.answerer.answer(Question((upload,), model, Wish()))
        answer: dict[str, Any] = json.loads(bytes(response.body))
        return answer

    async def models(self, request: Request) -> Response:
        """Answer GET /models."""
        rows = await asyncio.to_thread(self.runtime.list_models)
        body = {
            "ready": self.runtime.ready,
            "models": rows,
            "problems": self.runtime.problems(),
            "limits": describe(self.settings),
        }
        if not self.runtime.ready:
            body["hint"] = self.runtime.nothing_to_serve().hint
        return JSONResponse(body)

    async def compare(self, request: Request) -> Response:
        """Answer GET /compare."""
        try:
            rollout = self.runtime.rollout_called(request.query_params.get("model"))
        except Refusal as refusal:
            return refusal.response()
        return JSONResponse(rollout.describe())

    async def passport(self, request: Request) -> Response:
        """Answer GET /passport."""
        try:
            text = await asyncio.to_thread(self.runtime.passport, request.query_params.get("model"))
        except Refusal as refusal:
            return refusal.response()
        headers = {"Content-Security-Policy": seal(text), "Cache-Control": "no-cache"}
        return HTMLResponse(text, headers=headers)

    async def count(self, request: Request) -> Response:
        """Answer GET /metrics."""
        content, kind = await asyncio.to_thread(self.metrics.exposition)
        return Response(content, media_type=kind)

    async def page(self, request: Request) -> Response:
        """Answer GET /."""
        content, policy = page()
        headers = {"Content-Security-Policy": policy, "Cache-Control": "no-cache"}
        return HTMLResponse(content, headers=headers)

    async def document(self, request: Request) -> Response:
        """Answer GET /openapi.json."""
        return JSONResponse(describe_interface(self.settings, self.locked))

    def routes(self) -> dict[str, Route]:
        """Return what is answered before BentoML sees it, by path."""
        found = {
            "/": self.page, "/models": self.models, "/compare": self.compare, "/passport": self.passport,
            "/metrics": self.count,
            "/openapi.json": self.document, "/docs.json": self.document,  # where BentoML has one of its own
        }  # fmt: skip
        routes = {path: Route(path, answer, methods=["GET"]) for path, answer in found.items()}
        return routes | {"/predict": Route("/predict", self.predict, methods=["POST"])}


def build_service(settings: Settings) -> Any:
    """Return the BentoML service for these settings."""
    building = Building(settings)
    host = settings.host or ("0.0.0.0" if building.locked else "127.0.0.1")

    # BentoML's own timeout and bounds are the last resort behind Guard's, which answers in the one shape;
    # its metrics take every path that anybody invents as a label, and its log line knows no request.
    @bentoml.service(
        name="surgery",
        traffic={"timeout": settings.timeout_s + 30},
        http={"host": host},
        metrics={"enabled": False},
        logging={"access": {"enabled": False}},
        tracing={} if settings.tracing else {"excluded_urls": ".*"},
    )
    class Surgery:
        """Fine-tuned vision models over HTTP: POST /predict, GET /models."""

        @bentoml.on_startup  # type: ignore[untyped-decorator]
        def start(self) -> None:
            building.start()

        @bentoml.on_shutdown  # type: ignore[untyped-decorator]
        def stop(self) -> None:
            building.stop()

        async def __is_ready__(self) -> bool:
            return building.runtime.ready

        @bentoml.api(route="/predict")  # type: ignore[untyped-decorator]
        async def predict(self, image: Path, model: str | None = None) -> dict[str, Any]:
            """Answer one image: labels, or a mask."""
            # For BentoML's clients and for other services of the same process. The guard answers a request
            # before it comes here: BentoML's own reading makes a 500 of damaged bytes, and takes longer.
            return await building.predict_file(image, model)

    service: Any = Surgery
    routes = building.routes()
    own = Starlette(routes=list(routes.values()))

    def guard(app: Any) -> Guard:
        building.guard = Guard(app, settings, building.metrics, own, frozenset(routes))
        return building.guard

    service.add_asgi_middleware(guard)
    return service


def service_settings() -> Settings:
    """Return the settings of the environment; a mistake ends the start without a traceback."""
    try:
        return read_settings()
    except ConfigError as error:
        raise BentoMLConfigException(str(error)) from error


svc = build_service(service_settings())
