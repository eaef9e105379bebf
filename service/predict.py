"""One question answered: find the model, decode, infer, reply."""

from __future__ import annotations

import time
from typing import cast

from starlette.responses import JSONResponse, Response

from surgery.artifact.errors import SurgeryError
from surgery.artifact.image import decode_image
from surgery.artifact.session import Session, answer_image

from .reply import Refusal, answer_json, answer_png
from .request import Question
from .runtime import Runtime
from .served import Metered


def answer(runtime: Runtime, question: Question) -> Response:
    """Return the answer to one question. Blocks: it decodes and infers.

    Raises:
        Refusal: If there is no model for it, or no image in it.
    """
    served = runtime.find(question.model)
    manifest, meter = served.manifest, Metered(served)
    start = time.perf_counter()
    try:
        image = decode_image(question.image, "image", runtime.settings.max_pixels)
        decoded = time.perf_counter()
        result = answer_image(cast(Session, meter), manifest, image)
    except SurgeryError as error:
        raise Refusal.of(error) from error
    answered = time.perf_counter()
    if question.png:
        return answer_png(manifest, served.sha256, result)
    body = answer_json(manifest, served.sha256, served.precision, result)
    steps, network = result.milliseconds, meter.inference_s * 1e3
    times = {
        "decode": (decoded - start) * 1e3,
        "preprocess": steps["prepare"],
        "queue": max(0.0, steps["network"] - network),
        "inference": network,
        "postprocess": steps["answer"] + (time.perf_counter() - answered) * 1e3,
    }
    body["milliseconds"] = {step: round(value, 3) for step, value in times.items()}
    return JSONResponse(body)
