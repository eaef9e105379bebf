"""Limits on what one request may cost, and the one error shape for whatever others answer."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .access import REQUEST_ID, check_token, log, note, printable, request_id
from .metrics import Metrics
from .reply import MARK, Refusal
from .settings import Settings, read_tokens

PROBES = frozenset({"/livez", "/healthz", "/readyz"})
"""Paths that must answer when the service is full, and to everybody."""
OPEN = PROBES | {"/"}
"""Paths that need no token: the page asks for one itself."""
UNBOUND = OPEN | {"/metrics"}
"""Paths that do not count as requests at work."""
COUNTED = UNBOUND | {"/predict", "/models", "/compare", "/passport", "/openapi.json"}
"""Paths that are counted by name; all others as one."""

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

    A request without a token where one is wanted, past the bound of requests, with too large or too slow
    a body or out of time is refused before it costs more. What escapes from a route becomes a logged 500:
    left to BentoML, it would hang until the timeout and never be logged.

    Args:
        app: What is guarded.
        settings: The limits.
        metrics: Where replies are counted.
        own: Answers the paths of `own_paths` in the place of `app`.
        own_paths: Those paths.
    """

    def __init__(
        self, app: ASGIApp, settings: Settings, metrics: Metrics | None = None, own: ASGIApp | None = None,
        own_paths: frozenset[str] = frozenset(),
    ) -> None:  # fmt: skip
        self.app = app
        self.settings = settings
        self.metrics = metrics
        self.own = own or app
        self.own_paths = own_paths
        self.tokens = tuple(token.encode("ascii") for token in read_tokens(settings))
        self.at_work = 0
        self._brake = Brake()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers, path = Headers(scope=scope), scope["path"]
        exchange = Exchange(receive, send, self.settings, request_id(headers))
        try:
            if path not in OPEN:
                check_token(headers, self.tokens)
            app = self.own if path in self.own_paths else self.app
            if path in UNBOUND:
                await app(scope, receive, exchange.send)
            else:
                await self._bounded(app, scope, exchange)
        except Refusal as refusal:
            await exchange.refuse(refusal, scope)
        except ClientDisconnect:
            log.info("%s %s: the client went", scope["method"], printable(path))
        except Exception:
            log.exception("%s %s failed (request %s)", scope["method"], printable(path), exchange.id)
            await exchange.refuse(INTERNAL, scope)
        finally:
            self._note(scope, exchange)

    async def _bounded(self, app: ASGIApp, scope: Scope, exchange: Exchange) -> None:
        bound = self.settings.max_concurrency + self.settings.max_waiting
        if self.at_work >= bound:
            await self._brake.hold()
        if self.at_work >= bound:
            message = f"{bound} requests are at work or waiting already, which is the bound"
            hint = "Try again later."
            raise Refusal(429, "too_many_requests", message, hint, {"Retry-After": "1"})
        exchange.check_length(Headers(scope=scope).get("content-length", ""))
        self.at_work += 1
        clock = asyncio.timeout(self.settings.timeout_s)
        try:
            async with clock:
                await app(scope, exchange.receive, exchange.send)
        except TimeoutError:
            if not clock.expired():
                raise
            raise exchange.too_late() from None
        finally:
            self.at_work -= 1

    def _note(self, scope: Scope, exchange: Exchange) -> None:
        """Count the request and log it; probes are asked too often to be worth a line."""
        path = scope["path"] if scope["path"] in COUNTED else "other"
        seconds, status = time.perf_counter() - exchange.since, exchange.status
        model, version = exchange.answered_by
        if self.metrics is not None:
            self.metrics.replied(path, model, version, status, exchange.code, seconds)
        if path in PROBES:
            return
        facts = {
            "request_id": exchange.id, "method": scope["method"], "path": printable(scope["path"]),
            "status": status, "milliseconds": round(seconds * 1e3, 1),
        }  # fmt: skip
        facts |= {"model": model, "version": version} if model else {}
        note(facts | ({"code": exchange.code} if exchange.code else {}))


class Brake:
    """Holds refusals back a little once there are many: whoever comes again at once would otherwise take the
    processor from those who are at work."""

    FREE = 100
    """Refusals a second that are not held back."""
    HOLD_S = (0.3, 1.0)
    """Others wait between so many seconds: not all of them come again together."""
    MOST = 2000
    """Held back at one moment; further ones are not."""

    def __init__(self) -> None:
        self._level = 0.0
        self._since = time.monotonic()
        self._held = 0

    async def hold(self) -> None:
        """Return at once while there are few refusals, else after a moment."""
        now = time.monotonic()
        self._level = max(0.0, self._level - (now - self._since) * self.FREE) + 1
        self._since = now
        if self._level <= self.FREE or self._held >= self.MOST:
            return
        self._level = self.FREE
        self._held += 1
        try:
            await asyncio.sleep(random.uniform(*self.HOLD_S))
        finally:
            self._held -= 1


class Exchange:
    """One request and its response as they pass the guard."""

    def __init__(self, receive: Receive, send: Send, settings: Settings, id: str) -> None:
        self.id = id
        self.since = time.perf_counter()
        self.status = 0
        """Of the reply; 0 while there is none."""
        self.code = ""
        """Of the reply's error."""
        self.answered_by = ("", "")
        """Name and version of the model that answered."""
        self._receive = receive
        self._send = send
        self._settings = settings
        self._max = settings.max_body_bytes
        self._taken = 0
        self._body_is_here = False
        self._replaced = False

    def check_length(self, stated: str) -> None:
        if stated.isdecimal() and int(stated[:20]) > self._max:
            raise self._too_large()

    async def receive(self) -> Message:
        if self._body_is_here:
            return await self._receive()
        left = self.since + self._settings.body_timeout_s - time.perf_counter()
        try:
            message = await asyncio.wait_for(self._receive(), max(0.0, left))
        except TimeoutError:
            raise self._body_too_slow(self._settings.body_timeout_s) from None
        if message["type"] == "http.request":
            self._taken += len(message.get("body", b""))
            self._body_is_here = not message.get("more_body", False)
            if self._taken > self._max:
                raise self._too_large()
        return message

    async def send(self, message: Message) -> None:
        """Pass a response on; put the one error shape in the place of a foreign error."""
        if message["type"] == "http.response.start":
            headers = Headers(raw=message["headers"])
            if message["status"] >= 400 and MARK not in headers:
                self._replaced = True
                await self._send_foreign(message["status"], headers)
                return
            message = self._begin(message)
        if not self._replaced:
            await self._send(message)

    def _begin(self, message: Message) -> Message:
        """Note what the reply is, and put the request's id on it."""
        message = {**message, "headers": list(message["headers"])}
        headers = MutableHeaders(raw=message["headers"])
        self.status = message["status"]
        self.code = headers.get(MARK, "")
        self.answered_by = headers.get("x-surgery-model", ""), headers.get("x-surgery-version", "")
        headers[REQUEST_ID] = self.id
        headers["x-content-type-options"] = "nosniff"
        return message

    async def refuse(self, refusal: Refusal, scope: Scope) -> None:
        if self.status:  # half an answer cannot become another: the connection is cut instead
            raise refusal
        await refusal.response()(scope, self._receive, self._send_marked)

    async def _send_marked(self, message: Message) -> None:
        await self._send(self._begin(message) if message["type"] == "http.response.start" else message)

    async def _send_foreign(self, status: int, headers: Headers) -> None:
        code, message, hint = FOREIGN.get(status, (INTERNAL.code, INTERNAL.message, INTERNAL.hint))
        kept = {"Allow": headers["allow"]} if "allow" in headers else {}
        response = Refusal(status, code, message, hint, kept).response()
        await response({"type": "http"}, self._receive, self._send_marked)

    def too_late(self) -> Refusal:
        seconds = self._settings.timeout_s
        if not self._body_is_here:
            return self._body_too_slow(seconds)
        message = f"no answer within {seconds:g} seconds"
        return Refusal(504, "timeout", message, "Try again, or send a smaller image.")

    def _body_too_slow(self, seconds: float) -> Refusal:
        message = f"the request's body was not here within {seconds:g} seconds"
        return Refusal(408, "body_too_slow", message, "Send it faster, or a smaller image.")

    def _too_large(self) -> Refusal:
        message = f"the body is larger than {self._max / 2**20:g} MiB, the most that is taken"
        return Refusal(413, "body_too_large", message, "Send a smaller image.")


INTERNAL = Refusal.internal()


def describe(settings: Settings) -> dict[str, Any]:
    """Return the limits as GET /models states them."""
    return {
        "max_body_mib": settings.max_body_mib,
        "max_pixels": settings.max_pixels,
        "max_images": settings.max_images,
        "body_timeout_s": settings.body_timeout_s,
        "timeout_s": settings.timeout_s,
        "max_concurrency": settings.max_concurrency,
        "max_waiting": settings.max_waiting,
    }
