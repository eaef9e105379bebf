"""The interface as an OpenAPI 3.1 document; BentoML's own describes files in a form that is not valid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .access import REQUEST_ID
from .reply import MARK
from .request import OUTPUTS
from .settings import Settings

ERRORS = {
    400: "The request or its image cannot be read.",
    401: "The request carries no token that is known.",
    404: "There is no such model, version or path.",
    405: "The path takes another method.",
    406: "A picture is asked of an answer that is none, or is not one.",
    408: "The body was not here in time.",
    413: "The body is larger than is taken.",
    415: "The body is neither a form nor an image.",
    422: "An option cannot have that value, or there are too many images or pixels.",
    429: "As many requests as allowed are at work or wait.",
    500: "A fault of the service, which its log tells.",
    503: "There is no model that could answer.",
    504: "There was no answer in time.",
}
"""What each status of an error means."""
PREDICT_ERRORS = tuple(ERRORS)
PLAIN_ERRORS = (400, 401, 405, 408, 413, 429, 500, 504)

_STEPS = ("decode", "preprocess", "queue", "inference", "postprocess")
_PNG = {"type": "string", "contentEncoding": "base64", "contentMediaType": "image/png"}
_SHARE = {"type": "number", "minimum": 0, "maximum": 1}
_COUNT = {"type": "integer", "minimum": 0}
_KEY = {
    "name": "X-Request-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
    "description": "Requests of one key are answered by one version, also while a canary answers some.",
}
_ROLLOUT = {"kind": {"enum": ["shadow", "canary"]}, "share": {**_SHARE, "exclusiveMinimum": 0}}
_POINTS = {
    "type": "array",
    "items": {"type": "array", "items": _COUNT, "minItems": 2, "maxItems": 2},
}


def describe_interface(settings: Settings, locked: bool) -> dict[str, Any]:
    """Return the document.

    Args:
        settings: The limits, which it states.
        locked: Whether requests must carry a token.
    """
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "surgery",
            "version": "1",
            "description": "Fine-tuned vision models: labels or masks for images.",
        },
        "servers": [{"url": "/"}],
        "paths": {
            "/predict": {"post": _predict(settings)},
            "/models": {"get": _get("What is served, and what is not and why", "Models", "application/json")},
            "/compare": {"get": _compare()},
            "/passport": {"get": _passport()},
            "/metrics": {"get": _get("What was counted, for Prometheus", None, "text/plain")},
            "/openapi.json": {"get": _get("This document", "Document", "application/json")},
            "/": {"get": _get("The page to try it on", None, "text/html", locked=False)},
            "/livez": {"get": _probe("Whether the process runs")},
            "/healthz": {"get": _probe("Whether the process runs")},
            "/readyz": {"get": _probe("Whether a model can answer", 503)},
        },
        "components": {"schemas": _schemas(), "headers": _headers()},
    }
    if locked:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
    return document


def _predict(settings: Settings) -> dict[str, Any]:
    options = _options()
    form = {
        "type": "object",
        "required": ["image"],
        "properties": {
            "image": {
                "type": "array",
                "minItems": 1,
                "maxItems": settings.max_images,
                "items": {"type": "string", "contentMediaType": "application/octet-stream"},
                "description": "Images, each a file of its own.",
            },
            **{name: schema for name, (schema, _) in options.items()},
        },
    }
    picture = {"schema": {"type": "string", "contentMediaType": "image/png"}}
    return {
        "summary": "Answer one image, or several",
        "description": (
            "JPEG, PNG, WebP, BMP, TIFF or GIF (its first frame), recognised by content. A body holds at"
            f" most {settings.max_body_mib:g} MiB, an image {settings.max_pixels} pixels, a request"
            f" {settings.max_images} images; an answer takes at most {settings.timeout_s:g} seconds. Options"
            " stand in the form or in the query."
        ),
        "operationId": "predict",
        "parameters": [
            {"name": name, "in": "query", "required": False, "schema": schema, "description": text}
            for name, (schema, text) in options.items()
        ]
        + [_KEY],
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {"schema": form},
                "image/*": {"schema": {"type": "string", "contentMediaType": "image/*"}},
                "application/octet-stream": {"schema": {"type": "string", "contentMediaType": "image/*"}},
            },
        },
        "responses": {
            "200": {
                "description": "An answer, or for several images an answer or an error for each.",
                "headers": {
                    name: {"$ref": f"#/components/headers/{name}"}
                    for name in ("X-Request-Id", "Server-Timing", "X-Surgery-Model", "X-Surgery-Version")
                },
                "content": {
                    "application/json": {"schema": _ref("Prediction")},
                    "image/png": picture,
                },
            },
            **_errors(PREDICT_ERRORS),
        },
    }


def _options() -> dict[str, tuple[dict[str, Any], str]]:
    """Return schema and meaning of each option of /predict."""
    one_of = "|".join(OUTPUTS)
    return {
        "model": (
            {"type": "string"},
            "NAME, NAME@VERSION or NAME@ALIAS; may be left out where there is one model only.",
        ),
        "top_k": ({"type": "integer", "minimum": 1, "maximum": 10**9}, "So many labels at most."),
        "threshold": (_SHARE, "Labels at least so probable."),
        "outputs": (
            {"type": "string", "pattern": f"^({one_of})(,({one_of}))*$", "default": "mask"},
            f"Forms of a mask: some of {', '.join(OUTPUTS)}, separated by commas.",
        ),
        "explain": ({"type": "boolean", "default": False}, "Whether to draw what the answer rests on."),
    }


def _get(summary: str, schema: str | None, kind: str, locked: bool = True) -> dict[str, Any]:
    content = {kind: {"schema": _ref(schema) if schema else {"type": "string"}}}
    found: dict[str, Any] = {
        "summary": summary,
        "responses": {"200": {"description": summary, "content": content}, **_errors(PLAIN_ERRORS)},
    }
    return found if locked else {**found, "security": []}


def _compare() -> dict[str, Any]:
    found = _get("How a candidate compares with production", "Comparison", "application/json")
    text = "Name of the model; may be left out where there is one only."
    schema = {"type": "string"}
    found["parameters"] = [
        {"name": "model", "in": "query", "required": False, "schema": schema, "description": text}
    ]
    found["responses"] |= _errors((404, 503))
    return found


def _passport() -> dict[str, Any]:
    found = _get("What a version is made of, as a page", None, "text/html")
    text = "NAME, NAME@VERSION or NAME@ALIAS; may be left out where there is one model only."
    schema = {"type": "string"}
    found["parameters"] = [
        {"name": "model", "in": "query", "required": False, "schema": schema, "description": text}
    ]
    found["responses"] |= _errors((404, 503))
    return found


def _probe(summary: str, *errors: int) -> dict[str, Any]:
    return {
        "summary": summary,
        "security": [],
        "responses": {"200": {"description": "Yes"}, **_errors((405, 500, *errors))},
    }


def _errors(statuses: tuple[int, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for status in statuses:
        names = ["X-Request-Id", "X-Surgery-Error"]
        names += {429: ["Retry-After"], 401: ["WWW-Authenticate"]}.get(status, [])
        found[str(status)] = {
            "description": ERRORS[status],
            "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in names},
            "content": {"application/json": {"schema": _ref("Error")}},
        }
    return found


def _headers() -> dict[str, Any]:
    texts = {
        "X-Request-Id": "The request's own id if it had one, else a new one.",
        "X-Surgery-Error": "The error's code.",
        "X-Surgery-Model": "The model that answered.",
        "X-Surgery-Version": "Its version.",
        "Server-Timing": f"Milliseconds of {', '.join(_STEPS)}.",
        "Retry-After": "Seconds after which to ask again.",
        "WWW-Authenticate": "How to ask.",
    }
    assert {REQUEST_ID, MARK} <= {name.lower() for name in texts}
    return {name: {"description": text, "schema": {"type": "string"}} for name, text in texts.items()}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(required: Mapping[str, Any], optional: Mapping[str, Any] | None = None) -> dict[str, Any]:
    properties = {**required, **(optional or {})}
    return {"type": "object", "required": list(required), "properties": properties}


def _schemas() -> dict[str, Any]:
    text, numbers = {"type": "string"}, {"type": "array", "items": _COUNT}
    fault = _object({"code": text, "message": text, "hint": text})
    times = {step: {"type": "number", "minimum": 0} for step in _STEPS}
    label = _object({"label": text, "probability": _SHARE}, {"present": {"type": "boolean"}})
    box = _object({"label": text, "box": {**numbers, "minItems": 4, "maxItems": 4}, "pixels": _COUNT})
    polygon = _object(
        {"label": text, "polygon": _POINTS, "holes": {"type": "array", "items": _POINTS}, "pixels": _COUNT}
    )
    runs = _object({"size": numbers, "counts": numbers})
    answer = {
        "labels": {"type": "array", "items": label},
        "size": {**numbers, "minItems": 2, "maxItems": 2, "description": "Width and height."},
        "values": {"type": "object", "additionalProperties": _COUNT},
        "rest": {"type": ["string", "null"], "description": "The class that stands for everything else."},
        "pixels": {"type": "object", "additionalProperties": _SHARE},
        "boxes": {"type": "array", "items": box},
        "mask": _PNG,
        "polygons": {"type": "array", "items": polygon},
        "rle": {"type": "object", "additionalProperties": runs},
        "overlay": _PNG,
        "probabilities": {"type": "object", "additionalProperties": _PNG},
        "explanation": _object({"label": text, "image": _PNG}),
        "novelty": {
            **_SHARE,
            "type": ["number", "null"],
            "description": "Probability that an image of the training's kind lies as far out; small is novel."
            " Null where the version has no statistics of its training.",
        },
    }
    result = _object({"file": text}, {**answer, "milliseconds": _ref("Milliseconds"), "error": fault})
    who = {
        "model": text,
        "version": {"type": "integer", "minimum": 1},
        "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
        "precision": {"enum": ["fp32", "fp16", "int8"]},
        "task": {"enum": ["classify", "segment"]},
        "milliseconds": _ref("Milliseconds"),
    }
    return {
        "Error": _object({"error": fault}),
        "Milliseconds": {"type": "object", "properties": times},
        "Prediction": _object(who, {**answer, "results": {"type": "array", "items": result}}),
        "Models": _models(),
        "Comparison": _comparison(),
        "Document": _object({"openapi": text, "paths": {"type": "object"}}),
    }


def _models() -> dict[str, Any]:
    text, texts = {"type": "string"}, {"type": "array", "items": {"type": "string"}}
    row = _object(
        {
            "name": text,
            "version": {"type": "integer"},
            "aliases": texts,
            "state": {"enum": ["serving", "loaded", "stored", "failed"]},
        },
        {
            "classes": texts,
            "reason": text,
            "input": {"type": "object"},
            "device": text,
            "rollout": _object(_ROLLOUT, {"stopped": text}),
            "explains": {"type": "boolean"},
            "passport": {"type": "string", "format": "uri-reference"},
            "batch": _COUNT,
            "lanes": _COUNT,
        },
    )
    return _object(
        {
            "ready": {"type": "boolean"},
            "models": {"type": "array", "items": row},
            "problems": texts,
            "limits": {"type": "object", "additionalProperties": {"type": "number"}},
        },
        {"hint": text},
    )


def _comparison() -> dict[str, Any]:
    text, time = {"type": "string"}, {"type": ["number", "null"], "minimum": 0}
    side = _object(
        {
            "version": {"type": "integer", "minimum": 1},
            "answered": _COUNT,
            "errors": _COUNT,
            "milliseconds": _object({"p50": time, "p95": time}),
        }
    )
    differs = _object(
        {"sha256": text, "production": {"type": "object"}, "candidate": {"type": "object"}},
        {"overlap": _SHARE},
    )
    return _object(
        {"model": text, **_ROLLOUT, "since": text, "production": side, "candidate": side},
        {
            "stopped": text,
            "compared": _COUNT,
            "agreed": _COUNT,
            "agreement": {**_SHARE, "type": ["number", "null"]},
            "dropped": _COUNT,
            "disagreements": {"type": "array", "items": differs},
        },
    )
