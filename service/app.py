"""The BentoML service: its routes, and nothing else."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

# Read by BentoML when it starts: nothing is reported to anybody about who serves what.
os.environ["BENTOML_DO_NOT_TRACK"] = "True"

import bentoml
from bentoml._internal.utils.analytics import usage_stats
from bentoml.exceptions import BentoMLConfigException
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from surgery.artifact.errors import ConfigError

from .limits import Guard, describe
from .predict import answer
from .reply import Refusal
from .request import read_question
from .runtime import Runtime
from .settings import Settings

usage_stats.do_not_track.cache_clear()  # `bentoml serve` asked before this module could say no


class PredictInput(bentoml.IODescriptor):  # type: ignore[misc]
    """One image, and the model that is to answer."""

    image: Path
    model: str | None = None

    @classmethod
    async def from_http_request(cls, request: Request, serde: Any) -> PredictInput:
        """Hand the request on unread: BentoML's own reading answers damaged bytes with a 500."""
        unread: PredictInput = cls.model_construct(image=request)
        return unread


def build_service(settings: Settings) -> Any:
    """Return the BentoML service for these settings."""
    runtime = Runtime(settings)
    # Decoding on every core while one more thread waits for its turn at inference.
    pool = ThreadPoolExecutor((os.cpu_count() or 1) + 1, "answer")

    # BentoML's own timeout is the last resort behind Guard's, which answers in the one shape.
    @bentoml.service(name="surgery", traffic={"timeout": settings.timeout_s + 30})
    class Surgery:
        """Fine-tuned vision models over HTTP: POST /predict, GET /models."""

        @bentoml.on_startup  # type: ignore[untyped-decorator]
        def start(self) -> None:
            runtime.start()

        @bentoml.on_shutdown  # type: ignore[untyped-decorator]
        def stop(self) -> None:
            runtime.stop()

        async def __is_ready__(self) -> bool:
            return runtime.ready

        @bentoml.api(input_spec=PredictInput, route="/predict")  # type: ignore[untyped-decorator]
        async def predict(self, image: Any, model: str | None = None) -> Any:
            """Answer one image: labels, or a mask."""
            try:
                question = await read_question(image)
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(pool, answer, runtime, question)
            except Refusal as refusal:
                return refusal.response()

    async def models(request: Request) -> Response:
        loop = asyncio.get_running_loop()
        rows = await loop.run_in_executor(pool, runtime.list_models)
        body = {
            "ready": runtime.ready,
            "models": rows,
            "problems": runtime.problems(),
            "limits": describe(settings),
        }
        if not runtime.ready:
            body["hint"] = runtime.nothing_to_serve().hint
        return JSONResponse(body)

    service: Any = Surgery
    service.mount_asgi_app(Starlette(routes=[Route("/models", models, methods=["GET"])]))
    service.add_asgi_middleware(Guard, settings=settings)
    return service


def service_settings() -> Settings:
    """Return the settings of the environment; a mistake ends the start without a traceback."""
    try:
        return Settings.from_environment()
    except ConfigError as error:
        raise BentoMLConfigException(str(error)) from error


svc = build_service(service_settings())
