"""A service of two tiny models and a page: answers as the real one does, from a few lines of numpy."""

from __future__ import annotations

import base64
import io
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import uvicorn
from PIL import Image, ImageOps, UnidentifiedImageError
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from service.web import page

LIMITS = {"max_body_mib": 32.0, "max_pixels": 50_000_000, "max_images": 16, "timeout_s": 30.0}
TIMES = {"decode": 12.1, "preprocess": 3.2, "queue": 0.0, "inference": 24.6, "postprocess": 1.9}
STREET = ("rest", "red", "green", "blue")


def model(name: str, version: int, state: str, *aliases: str, **fields: Any) -> dict[str, Any]:
    """Return a row of GET /models."""
    task = {"colours": "classify"}.get(name, "segment")
    size = {"size_rule": "crop", "width": 32, "height": 24} if task == "classify" else {"size_rule": "native"}
    row = {"name": name, "version": version, "aliases": list(aliases), "state": state}
    if state == "failed":
        return {**row, "reason": "altered or half-copied", **fields}
    facts = {"task": task, "classes": list(STREET), "input": size, "precision": "fp32"}
    return {**row, **facts, "sha256": f"{version}a" * 32, "created": "2025-01-01T00:00:00+00:00", **fields}


MODELS = [
    model("boats", 1, "stored"),
    model("colours", 1, "stored", "previous"),
    model("colours", 2, "serving", "production"),
    model("colours", 3, "failed"),
    model("street", 1, "serving", "production"),
]


def picture(grey: np.ndarray) -> str:
    """Return a grey image (h, w) as a PNG in base64."""
    file = io.BytesIO()
    Image.fromarray(grey).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def answer_labels(pixels: np.ndarray) -> dict[str, Any]:
    """Return how much of each colour is in the pixels (h, w, 3), and shades of it that are less probable."""
    shares = pixels.reshape(-1, 3).mean(axis=0) + 1
    named = dict(zip(STREET[1:], (shares / shares.sum() * 0.9).tolist(), strict=True))
    named |= {f"{shade} {name}": 0.1 / 6 for shade in ("pale", "dark") for name in STREET[1:]}
    order = sorted(named, key=lambda name: -named[name])
    return {"labels": [{"label": name, "probability": named[name]} for name in order]}


def answer_mask(pixels: np.ndarray) -> dict[str, Any]:
    """Return which pixels (h, w, 3) are red, green or blue."""
    height, width = pixels.shape[:2]
    brightest = pixels.max(axis=2) > 127
    mask = np.where(brightest, pixels.argmax(axis=2) + 1, 0).astype(np.uint8)
    boxes = []
    for value, name in enumerate(STREET):
        rows, columns = np.nonzero(mask == value)
        if value and len(rows):
            ends = [int(n) for n in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)]
            boxes.append({"label": name, "box": ends, "pixels": len(rows)})
    return {
        "size": [width, height],
        "values": {name: value for value, name in enumerate(STREET)},
        "pixels": {name: float((mask == value).mean()) for value, name in enumerate(STREET)},
        "boxes": boxes,
        "mask": picture(mask),
    }


async def predict(request: Request) -> Response:
    form = await request.form()
    file, asked = form["image"], str(form["model"])
    assert isinstance(file, UploadFile)
    try:
        image = Image.open(io.BytesIO(await file.read()))
    except UnidentifiedImageError:
        error = {"code": "bad_image", "message": "image: not an image", "hint": "Send a JPEG or a PNG."}
        return JSONResponse({"error": error}, 400)
    pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    name, _, version = asked.partition("@")
    rows = [row for row in MODELS if row["name"] == name]
    row = next(row for row in rows if str(row["version"]) == version or row["state"] == "serving")
    body = {key: row[key] for key in ("version", "sha256", "precision", "task")}
    body |= {"model": name, "milliseconds": TIMES}
    body |= answer_labels(pixels) if row["task"] == "classify" else answer_mask(pixels)
    body["novelty"] = {"colours": 0.42, "street": 0.00398}[name]
    if form.get("explain") == "true":
        strength = np.linspace(0, 255, pixels.shape[1]).astype(np.uint8)
        heat = np.tile(strength, (len(pixels), 1))  # (w,) -> (h, w)
        body["explanation"] = {"label": "red", "image": picture(heat)}
    return JSONResponse(body)


async def models(request: Request) -> Response:
    return JSONResponse({"ready": True, "models": MODELS, "problems": [], "limits": LIMITS})


async def root(request: Request) -> Response:
    body, policy = page()
    return Response(body, media_type="text/html", headers={"Content-Security-Policy": policy})


@contextmanager
def running(app: Any = None) -> Iterator[str]:
    """Run an application, or else the stand-in, in a thread; gives its address."""
    routes = [Route("/", root), Route("/models", models), Route("/predict", predict, methods=["POST"])]
    app = app or Starlette(routes=routes)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        bound.listen()  # so that who asks before the server runs waits
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)
