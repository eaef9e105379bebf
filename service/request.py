"""What a client may send to /predict, read from a body of any form and of any bytes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from starlette.datastructures import FormData, UploadFile
from starlette.requests import ClientDisconnect, Request

from .reply import Refusal

SEND_A_FILE = "Send it as a file: curl -F image=@photo.jpg URL/predict"
OUTPUTS = ("mask", "polygons", "rle", "overlay", "probabilities")
"""Forms in which a mask can be asked for."""
OPTIONS = ("model", "top_k", "threshold", "outputs", "explain")
REQUEST_KEY = "x-request-key"
"""Header by which a client keeps its requests with one version while two of them answer."""
_WORDS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_MAX_FIELDS = 32
N = TypeVar("N", int, float)


@dataclass(frozen=True)
class Upload:
    """One image as it was sent."""

    name: str
    """Name of the file, as the client calls it."""
    data: bytes


@dataclass(frozen=True)
class Wish:
    """What the answer is to hold."""

    top_k: int | None = None
    """So many labels at most."""
    threshold: float = 0.0
    """Labels at least so probable."""
    outputs: tuple[str, ...] = ("mask",)
    """Of `OUTPUTS`."""
    explain: bool = False
    """Whether a map is wanted of what the answer rests on."""
    png: bool = False
    """Whether the picture itself is wanted, not JSON."""


@dataclass(frozen=True)
class Question:
    """Images, who is to answer, and how."""

    images: tuple[Upload, ...]
    model: str | None
    """name, name@version or name@alias; None where the only model is meant."""
    wish: Wish
    key: str | None = None
    """What the client sent as `REQUEST_KEY`."""


async def read_question(request: Request, max_images: int) -> Question:
    """Read a multipart form, or an image that is the body itself.

    Raises:
        Refusal: 400 if a field is missing, twice there or of another kind; 413 if the body is too
            large; 415 if it is neither a form nor an image; 422 if there are too many images, or an
            option has a value that it cannot have.
    """
    media_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    options = {name: request.query_params.getlist(name) for name in OPTIONS}
    try:
        if media_type == "multipart/form-data":
            images = await _read_form(request, options, max_images)
        elif media_type.startswith("image/") or media_type == "application/octet-stream":
            images = (Upload("image", await request.body()),)
        else:
            raise Refusal(
                415,
                "unsupported_media_type",
                f"the body is {media_type[:60] or 'of no stated type'}; allowed are a form"
                " (multipart/form-data) with the field 'image', or an image itself (image/*)",
                SEND_A_FILE,
            )
    except ClientDisconnect as error:
        raise Refusal(400, "client_gone", "the client went before its body was here") from error
    chosen = {name: _only(name, texts) for name, texts in options.items()}
    wish = _read_wish(chosen, wants_png(request), len(images))
    return Question(images, chosen["model"], wish, request.headers.get(REQUEST_KEY))


async def _read_form(request: Request, options: dict[str, list[str]], max_images: int) -> tuple[Upload, ...]:
    """Return the images of a form, and add its other fields to the options."""
    try:
        # One more than allowed, so that it is this program that says how many are.
        form = await request.form(max_files=max_images + 1, max_fields=_MAX_FIELDS)
    except (Refusal, ClientDisconnect):
        raise
    except Exception as error:  # whatever the parser raises, it is the client's bytes that did it
        detail = str(getattr(error, "detail", None) or getattr(error, "message", None) or "no more")
        if detail.startswith("Too many files"):
            raise _too_many(max_images) from error
        raise Refusal(400, "bad_form", f"the body is no readable form ({detail})", SEND_A_FILE) from error
    try:
        files = _image_fields(form)
        if len(files) > max_images:
            raise _too_many(max_images)
        for name in OPTIONS:
            texts = [_unquoted(value) for value in form.getlist(name) if isinstance(value, str)]
            options[name] = options[name] + [text for text in texts if text]
        return tuple([Upload(file.filename or "image", await file.read()) for file in files])
    finally:
        await form.close()


def _too_many(max_images: int) -> Refusal:
    message = f"the form has more than {max_images} images, the most that one request may hold"
    return Refusal(422, "too_many_images", message, "Send them in several requests.")


def _image_fields(form: FormData) -> list[UploadFile]:
    sent = form.getlist("image")
    if not sent:
        others = ", ".join(sorted({repr(key[:40]) for key in form})) or "none"
        raise Refusal(
            400,
            "missing_field",
            f"the form has no field 'image' (its fields: {others})",
            SEND_A_FILE,
        )
    files = [file for file in sent if isinstance(file, UploadFile)]
    if len(files) < len(sent):
        raise Refusal(400, "wrong_field", "the field 'image' holds text, not a file", SEND_A_FILE)
    return files


def _unquoted(text: str) -> str:
    """Return a form's text as meant: BentoML's own client sends each text field as JSON."""
    if text == "null":
        return ""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


def _only(name: str, texts: list[str]) -> str | None:
    if len(set(texts)) > 1:
        message = f"'{name}' is stated {len(texts)} times, each time another"
        raise Refusal(400, "bad_request", message, f"State one {name}.")
    return texts[0] if texts else None


def _read_wish(chosen: dict[str, str | None], png: bool, images: int) -> Wish:
    if png and images > 1:
        message = f"{images} images cannot be answered with one PNG"
        raise Refusal(406, "not_acceptable", message, "Ask for it without 'Accept: image/png'.")
    top_k = None if chosen["top_k"] is None else _read_number("top_k", chosen["top_k"], 1, math.inf, int)
    threshold = (
        0.0 if chosen["threshold"] is None else _read_number("threshold", chosen["threshold"], 0, 1, float)
    )
    explain = chosen["explain"]
    if explain is not None and explain.lower() not in _WORDS:
        raise _bad_option("explain", explain, "true or false")
    return Wish(
        top_k, threshold, _read_outputs(chosen["outputs"]), _WORDS[(explain or "false").lower()], png
    )  # fmt: skip


def _read_outputs(text: str | None) -> tuple[str, ...]:
    if text is None:
        return ("mask",)
    outputs = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    if not set(outputs) <= set(OUTPUTS):
        raise _bad_option("outputs", text, f"some of {', '.join(OUTPUTS)}, separated by commas")
    return outputs


def _read_number(name: str, text: str, low: float, high: float, kind: Callable[[str], N]) -> N:
    wanted = f"{'a whole number' if kind is int else 'a number'} from {low:g}"
    wanted += f" to {high:g}" if high < math.inf else " on"
    try:
        value = kind(text) if len(text) <= 20 else None
    except ValueError:
        value = None
    if value is None or not low <= value <= high:
        raise _bad_option(name, text, wanted)
    return value


def _bad_option(name: str, text: str, wanted: str) -> Refusal:
    return Refusal(422, "bad_option", f"'{name}' is {text[:60]!r}; it is {wanted}", "See docs/serving.md.")


def wants_png(request: Request) -> bool:
    """Whether the client names image/png, and prefers it to JSON."""
    weights = {"image/png": 0.0, "application/json": 0.0}
    for choice in ",".join(request.headers.getlist("accept")).split(","):
        kind, *parameters = (part.strip().lower() for part in choice.split(";"))
        if kind in weights:
            quality = next((p[2:] for p in parameters if p.startswith("q=")), "1")
            weights[kind] = float(quality) if quality.replace(".", "", 1).isdecimal() else 0.0
    return weights["image/png"] > weights["application/json"]
