"""Plain Starlette before onnxruntime: `uvicorn starlette_app:app`."""

from __future__ import annotations

import io

from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from vision import Vision, to_png

vision = Vision()


def answer(data: bytes) -> Response:
    """Decode, infer, reply."""
    logits = vision(Image.open(io.BytesIO(data)))
    if vision.facts["task"] == "segment":
        return Response(to_png(vision.mask(logits)), media_type="image/png")
    return JSONResponse({"labels": vision.labels(logits)})


async def predict(request: Request) -> Response:
    """Answer one image of a form."""
    async with request.form() as form:
        data = await form["image"].read()
    return await run_in_threadpool(answer, data)


async def health(request: Request) -> Response:
    """Say that it runs."""
    return JSONResponse({})


app = Starlette(routes=[Route("/predict", predict, methods=["POST"]), Route("/health", health)])
