"""What a client may send to /predict, read from a body of any form and of any bytes."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.datastructures import FormData, UploadFile
from starlette.requests import ClientDisconnect, Request

from .reply import Refusal

SEND_A_FILE = "Send it as a file: curl -F image=@photo.jpg URL/predict"


@dataclass(frozen=True)
class Question:
    """One image and who is to answer."""

    image: bytes
    """The file as it was sent."""
    model: str | None
    """name, name@version or name@alias; None where the only model is meant."""
    png: bool
    """Whether the mask itself is wanted, not JSON."""


async def read_question(request: Request) -> Question:
    """Read a multipart form, or an image that is the body itself.

    Raises:
        Refusal: 400 if a field is missing, twice there or of another kind; 413 if the body is too
            large; 415 if it is neither a form nor an image.
    """
    media_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    asked = request.query_params.getlist("model")
    try:
        if media_type == "multipart/form-data":
            image, named = await _read_form(request)
            asked += named
        elif media_type.startswith("image/") or media_type == "application/octet-stream":
            image = await request.body()
        else:
            raise Refusal(
                415,
                "unsupported_media_type",
                f"the body is {media_type or 'of no stated type'}; allowed are a form"
                " (multipart/form-data) with the field 'image', or an image itself (image/*)",
                SEND_A_FILE,
            )
    except ClientDisconnect as error:
        raise Refusal(400, "client_gone", "the client went before its body was here") from error
    if len(set(asked)) > 1:
        raise Refusal(
            400,
            "bad_request",
            f"the model is named {len(asked)} times, each time another",
            "Name one model.",
        )
    return Question(image, asked[0] if asked else None, _wants_png(request))


async def _read_form(request: Request) -> tuple[bytes, list[str]]:
    try:
        form = await request.form(max_files=8, max_fields=8)
    except (Refusal, ClientDisconnect):
        raise
    except Exception as error:  # whatever the parser raises, it is the client's bytes that did it
        detail = getattr(error, "detail", None) or getattr(error, "message", None) or "no more"
        raise Refusal(400, "bad_form", f"the body is no readable form ({detail})", SEND_A_FILE) from error
    try:
        file = _image_field(form)
        named = [_unquoted(value) for value in form.getlist("model") if isinstance(value, str)]
        return await file.read(), [name for name in named if name]
    finally:
        await form.close()


def _image_field(form: FormData) -> UploadFile:
    sent = form.getlist("image")
    if not sent:
        others = ", ".join(sorted({repr(key[:40]) for key in form})) or "none"
        raise Refusal(
            400,
            "missing_field",
            f"the form has no field 'image' (its fields: {others})",
            SEND_A_FILE,
        )
    if len(sent) > 1:
        raise Refusal(
            400,
            "bad_request",
            f"the form has {len(sent)} fields 'image'; one image is answered per request",
            "Send one request for each image.",
        )
    (file,) = sent
    if not isinstance(file, UploadFile):
        raise Refusal(400, "wrong_field", "the field 'image' holds text, not a file", SEND_A_FILE)
    return file


def _unquoted(text: str) -> str:
    """Return a form's text as meant: BentoML's own client sends each text field as JSON."""
    if text == "null":
        return ""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


def _wants_png(request: Request) -> bool:
    """Whether the client names image/png, and prefers it to JSON."""
    weights = {"image/png": 0.0, "application/json": 0.0}
    for choice in ",".join(request.headers.getlist("accept")).split(","):
        kind, *parameters = (part.strip().lower() for part in choice.split(";"))
        if kind in weights:
            quality = next((p[2:] for p in parameters if p.startswith("q=")), "1")
            weights[kind] = float(quality) if quality.replace(".", "", 1).isdecimal() else 0.0
    return weights["image/png"] > weights["application/json"]
