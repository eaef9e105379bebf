"""Limits on what one request may cost, and the one error shape for whatever others answer."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .reply import MARK, Refusal
from .settings import Settings

log = logging.getLogger("bentoml.surgery")

PROBES = frozenset({"/livez", "/healthz", "/readyz", "/metrics"})
"""Paths that must answer when the service is full."""

FOREIGN = {
    400: ("bad_request", "the request could not be read", "See docs/serving.md."),
    404: ("not_found", "there is nothing at this path", "Ask POST /predict or GET /models."),
    405: (
        "method_not_allowed",
        "this path takes another method",
        "Ask POST /predict or GET /models.",
    ),
    415: ("unsupported_media_type", "a body of this type is not taken", "Send a form or an image."),
    503: ("not_ready", "the service has no model to answer with", "GET /models says why."),
}
"""Code, message and hint for the errors that BentoML or Starlette answer by themselves."""


class Guard:
    """ASGI middleware around every route.

    A request past the concurrency bound, with too large a body or out of time is refused before it
    costs more. What escapes from a route becomes a logged 500: left to BentoML, it would hang until
    the timeout and never be logged.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.settings = settings
        self.running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        exchange = Exchange(receive, send, self.settings.max_body_bytes)
        try:
            if scope["path"] in PROBES:
                await self.app(scope, receive, exchange.send)
            else:
                await self._bounded(scope, exchange)
        except Refusal as refusal:
            await exchange.refuse(refusal, scope)
        except ClientDisconnect:
            log.info("%s %s: the client went", scope["method"], scope["path"])
        except Exception:
            log.exception("%s %s failed", scope["method"], scope["path"])
            await exchange.refuse(INTERNAL, scope)

    async def _bounded(self, scope: Scope, exchange: Exchange) -> None:
        bound = self.settings.max_concurrency
        if self.running >= bound:
            message = f"{bound} requests are at work already, which is the bound"
            hint = "Try again later."
            raise Refusal(429, "too_many_requests", message, hint, {"Retry-After": "1"})
        exchange.check_length(Headers(scope=scope).get("content-length", ""))
        self.running += 1
        clock = asyncio.timeout(self.settings.timeout_s)
        try:
            async with clock:
                await self.app(scope, exchange.receive, exchange.send)
        except TimeoutError:
            if not clock.expired():
                raise
            raise exchange.too_late(self.settings.timeout_s) from None
        finally:
            self.running -= 1


class Exchange:
    """One request and its response as they pass the guard."""

    def __init__(self, receive: Receive, send: Send, max_body_bytes: int) -> None:
        self._receive = receive
        self._send = send
        self._max = max_body_bytes
        self._taken = 0
        self._body_is_here = False
        self._started = False
        self._replaced = False

    def check_length(self, stated: str) -> None:
        if stated.isdecimal() and int(stated[:20]) > self._max:
            raise self._too_large()

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._taken += len(message.get("body", b""))
            self._body_is_here = not message.get("more_body", False)
            if self._taken > self._max:
                raise self._too_large()
        return message

    async def send(self, message: Message) -> None:
        """Pass a response on; put the one error shape in the place of a foreign error."""
        if message["type"] == "http.response.start":
            self._started = True
            headers = Headers(raw=message["headers"])
            if message["status"] >= 400 and MARK not in headers:
                self._replaced = True
                await self._send_foreign(message["status"], headers)
                return
            message = {**message, "headers": [*message["headers"], *_page_headers(headers)]}
        if not self._replaced:
            await self._send(message)

    async def refuse(self, refusal: Refusal, scope: Scope) -> None:
        if self._started:  # half an answer cannot become another: the connection is cut instead
            raise refusal
        self._started = True
        await refusal.response()(scope, self._receive, self._send)

    async def _send_foreign(self, status: int, headers: Headers) -> None:
        code, message, hint = FOREIGN.get(status, (INTERNAL.code, INTERNAL.message, INTERNAL.hint))
        kept = {"Allow": headers["allow"]} if "allow" in headers else {}
        response = Refusal(status, code, message, hint, kept).response()
        await response({"type": "http"}, self._receive, self._send)

    def too_late(self, timeout_s: float) -> Refusal:
        if self._body_is_here:
            message = f"no answer within {timeout_s:g} seconds"
            return Refusal(504, "timeout", message, "Try again, or send a smaller image.")
        message = f"the request's body was not here within {timeout_s:g} seconds"
        return Refusal(408, "body_too_slow", message, "Send it faster, or a smaller image.")

    def _too_large(self) -> Refusal:
        message = f"the body is larger than {self._max / 2**20:g} MiB, the most that is taken"
        return Refusal(413, "body_too_large", message, "Send a smaller image.")


INTERNAL = Refusal(500, "internal_error", "the service failed on this request", "Its log says where.")


def _page_headers(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Return what keeps BentoML's own page from loading and running scripts of other hosts."""
    if not headers.get("content-type", "").startswith("text/html"):
        return []
    rule = b"script-src 'self'; frame-src 'none'; connect-src 'self'"
    return [(b"content-security-policy", rule)]


def describe(settings: Settings) -> dict[str, Any]:
    """Return the limits as GET /models states them."""
    return {
        "max_body_mib": settings.max_body_mib,
        "max_pixels": settings.max_pixels,
        "timeout_s": settings.timeout_s,
        "max_concurrency": settings.max_concurrency,
    }
