"""The one JSON shape of an error, and the two forms of an answer."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse, Response

from surgery.artifact import answer as answers
from surgery.artifact.errors import ImageError, SurgeryError
from surgery.artifact.manifest import Manifest
from surgery.artifact.session import Answer

MARK = "x-surgery-error"
"""Header that every error of ours carries, with its code; an error without it is BentoML's."""


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
    def of(cls, error: SurgeryError) -> Refusal:
        """Return the refusal of an error: 400 for an image, else it is the service's own."""
        status = 400 if isinstance(error, ImageError) else 500
        return cls(status, error.code, error.message, error.hint)

    def response(self) -> Response:
        error = {"code": self.code, "message": self.message, "hint": self.hint}
        return JSONResponse(
            {"error": error}, status_code=self.status, headers={**self.headers, MARK: self.code}
        )


def answer_json(manifest: Manifest, sha256: str, precision: str, answer: Answer) -> dict[str, Any]:
    """Return the JSON body of an answer, all but its times."""
    body: dict[str, Any] = {
        "model": manifest.name,
        "version": manifest.version,
        "sha256": sha256,
        "precision": precision,
        "task": manifest.task,
    }
    if answer.mask is None:
        return {**body, "labels": answer.labels}
    height, width = answer.mask.shape
    return {
        **body,
        "mask": base64.b64encode(answers.encode_mask_png(answer.mask)).decode("ascii"),
        "size": [width, height],
        "values": dict(zip(manifest.output.classes, manifest.output.mask_values, strict=True)),
        "pixels": answers.mask_pixels(answer.mask, manifest.output),
        "boxes": answers.mask_boxes(answer.mask, manifest.output),
    }


def answer_png(manifest: Manifest, sha256: str, answer: Answer) -> Response:
    """Return the index mask itself, in the image's own size.

    Raises:
        Refusal: 406 if the model's answer is no mask.
    """
    if answer.mask is None:
        raise Refusal(
            406,
            "not_acceptable",
            f"{manifest.name} answers with labels, which are no image",
            "Ask for it without 'Accept: image/png'.",
        )
    headers = {
        "X-Surgery-Model": manifest.name,
        "X-Surgery-Version": str(manifest.version),
        "X-Surgery-Sha256": sha256,
    }
    return Response(answers.encode_mask_png(answer.mask), media_type="image/png", headers=headers)
