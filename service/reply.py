"""The one JSON shape of an error, and the forms of an answer."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import cv2
from starlette.responses import JSONResponse, Response

from surgery.artifact import answer as answers
from surgery.artifact import shapes
from surgery.artifact.answer import LabelAnswer, Mask
from surgery.artifact.errors import ImageError, PixelsError, SurgeryError
from surgery.artifact.image import Pixels
from surgery.artifact.manifest import Manifest

if TYPE_CHECKING:
    from .batcher import Run
    from .request import Wish
    from .served import Served

MARK = "x-surgery-error"
"""Header that every error of ours carries, with its code; an error without it is BentoML's."""

Picture = bytes
"""A PNG."""


class Refusal(Exception):
    """A request that gets an error instead of an answer.

    Args:
        status: HTTP status.
        code: Stable name of the error for machines.
        message: What was found and what is allowed.
        hint: What to do next.
        headers: Further headers of the response.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        hint: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.hint = hint
        self.headers = dict(headers or {})

    @classmethod
    def of(cls, error: ImageError) -> Refusal:
        """Return the refusal of an image."""
        return cls(422 if isinstance(error, PixelsError) else 400, error.code, error.message, error.hint)

    @classmethod
    def internal(cls) -> Refusal:
        """Return that of a fault of the service: what it was the log says, and nobody outside is told."""
        return cls(500, "internal_error", "the service failed on this request", "Its log says where.")

    def body(self) -> dict[str, str]:
        return {"code": self.code, "message": self.message, "hint": self.hint}

    def response(self) -> Response:
        headers = {**self.headers, MARK: self.code}
        return JSONResponse({"error": self.body()}, status_code=self.status, headers=headers)


def describe_model(served: Served) -> dict[str, Any]:
    """Return who answered."""
    manifest = served.manifest
    return {
        "model": manifest.name,
        "version": manifest.version,
        "sha256": served.sha256,
        "precision": served.precision,
        "task": manifest.task,
    }


def describe_answer(
    manifest: Manifest,
    image: Pixels,
    run: Run,
    labels: list[LabelAnswer] | None,
    mask: Mask | None,
    wish: Wish,
) -> tuple[dict[str, Any], Picture | None]:
    """Return what is said of one image, and the picture where that alone is wanted.

    Raises:
        Refusal: 406 if a picture is wanted and the answer is none; 422 if an output is asked of a
            model that does not have it.
    """
    explanation = _explain(manifest, image, run, labels, mask) if wish.explain else None
    if wish.png and explanation:
        return {}, explanation[1]
    more = {}
    if explanation:
        more = {"explanation": {"label": explanation[0], "image": _to_text(explanation[1])}}
    if mask is None:
        assert labels is not None
        if wish.png:
            message = f"{manifest.name} answers with labels, which are no image"
            raise Refusal(406, "not_acceptable", message, "Ask for it without 'Accept: image/png'.")
        return {"labels": _choose(labels, wish), **more}, None
    forms = _draw(manifest, image, run, mask, wish)
    if wish.png:
        return {}, _only_picture(forms)
    height, width = mask.shape
    output = manifest.output
    body = {
        "size": [width, height],
        "values": dict(zip(output.classes, output.mask_values, strict=True)),
        "rest": output.rest,
        "pixels": answers.mask_pixels(mask, output),
        "boxes": answers.mask_boxes(mask, output),
        **{name: _to_text(form) for name, form in forms.items()},
        **more,
    }
    return body, None


def _explain(
    manifest: Manifest, image: Pixels, run: Run, labels: list[LabelAnswer] | None, mask: Mask | None
) -> tuple[str, Picture]:
    """Return a class and where the evidence for it lies.

    The most probable label and its class activation map; or the class of the most pixels, the rest left out,
    and its probability.
    """
    output, size = manifest.output, (image.shape[1], image.shape[0])
    if mask is None:
        assert labels is not None
        assert run.cam is not None
        label = labels[0]["label"]
        heat = answers.label_heat(run.cam, output.classes.index(label), size, manifest.input)
        return label, encode_png(heat)
    shares = answers.mask_pixels(mask, output)
    label = max((name for name, _ in answers.drawn_classes(output)), key=lambda name: shares[name])
    return label, encode_png(answers.mask_heat(run.logits, output.classes.index(label), size, output))


def _choose(labels: list[LabelAnswer], wish: Wish) -> list[LabelAnswer]:
    return [label for label in labels if label["probability"] >= wish.threshold][: wish.top_k]


def _draw(manifest: Manifest, image: Pixels, run: Run, mask: Mask, wish: Wish) -> dict[str, Any]:
    """Return each output that is wanted; pictures as PNG."""
    output = manifest.output

    def probabilities() -> dict[str, Picture]:
        size = (mask.shape[1], mask.shape[0])
        planes = shapes.class_probabilities(run.logits, size, output)
        return {name: encode_png(plane) for name, plane in planes.items()}

    forms = {
        "mask": lambda: answers.encode_mask_png(mask),
        "polygons": lambda: shapes.mask_polygons(mask, output),
        "rle": lambda: shapes.mask_run_lengths(mask, output),
        "overlay": lambda: encode_png(
            cv2.cvtColor(answers.draw_overlay(image, mask, output), cv2.COLOR_RGB2BGR)
        ),
        "probabilities": probabilities,
    }
    return {name: forms[name]() for name in wish.outputs}


def _only_picture(forms: dict[str, Any]) -> Picture:
    """Return the one picture among the outputs.

    Raises:
        Refusal: 406 if there is none, or there are several.
    """
    found = [
        picture
        for form in forms.values()
        for picture in (form.values() if isinstance(form, dict) else [form])
        if isinstance(picture, bytes)
    ]
    if len(found) != 1 or len(forms) != 1:
        message = f"'outputs' is {','.join(forms)}, which is not one picture"
        hint = "Ask for mask, overlay, or probabilities of a model of one class; or for JSON."
        raise Refusal(406, "not_acceptable", message, hint)
    return found[0]


def encode_png(pixels: Any) -> Picture:
    """Return grey (h, w) or BGR (h, w, 3) pixels, uint8, as a PNG."""
    done, data = cv2.imencode(".png", pixels)
    if not done:
        raise SurgeryError(f"a picture of {pixels.dtype} {pixels.shape} cannot be written as PNG")
    picture: bytes = data.tobytes()
    return picture


def _to_text(form: Any) -> Any:
    """Return pictures as base64, wherever they stand."""
    if isinstance(form, bytes):
        return base64.b64encode(form).decode("ascii")
    if isinstance(form, dict):
        return {key: _to_text(value) if isinstance(value, bytes) else value for key, value in form.items()}
    return form
