"""Who may ask, and the line that the log gets for each request."""

from __future__ import annotations

import hmac
import json
import logging
import re
import sys
import time
import uuid
from collections.abc import Mapping
from urllib.parse import quote

from starlette.datastructures import Headers

from .reply import Refusal

log = logging.getLogger("surgery.service")
log.propagate = False  # the servers above would write each line once more, in their own form
REQUEST_ID = "x-request-id"
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def check_token(headers: Headers, tokens: tuple[bytes, ...]) -> None:
    """Let a request pass that carries one of the tokens, or where there are none.

    Raises:
        Refusal: 401.
    """
    if not tokens:
        return
    scheme, _, sent = headers.get("authorization", "").partition(" ")
    given = sent.strip().encode("latin-1")
    # All are compared, so that the time says nothing of which one was near.
    known = sum(hmac.compare_digest(given, token) for token in tokens)
    if scheme.lower() == "bearer" and known:
        return
    message = "the request carries no token that is known" if sent else "the request carries no token"
    hint = "Send the header 'Authorization: Bearer TOKEN'."
    raise Refusal(401, "unauthorised", message, hint, {"WWW-Authenticate": "Bearer"})


def request_id(headers: Headers) -> str:
    """Return the request's own id where it is a plain one, else a new one."""
    sent = headers.get(REQUEST_ID, "")
    return sent if _ID.fullmatch(sent) else uuid.uuid4().hex


def printable(path: str) -> str:
    """Return the beginning of a path as it may stand in a log: servers hand it on decoded, line feeds too."""
    return quote(path[:200], safe="/:@!$&'()*+,;=~")


def note(facts: Mapping[str, object]) -> None:
    """Write the line of a request."""
    text = " ".join(f"{key}={value}" for key, value in facts.items())
    log.info("%s", text, extra={"facts": dict(facts)})


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, object] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
        }
        facts = getattr(record, "facts", None)
        line |= facts if isinstance(facts, dict) else {"message": record.getMessage()}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def start_log(form: str) -> None:
    """Send the service's own lines to stdout, as text or JSON, however often it is called."""
    for earlier in [each for each in log.handlers if each.get_name() == log.name]:
        log.removeHandler(earlier)
    handler = logging.StreamHandler(sys.stdout)
    handler.set_name(log.name)
    plain = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    handler.setFormatter(JsonLines() if form == "json" else plain)
    log.addHandler(handler)
    log.setLevel(logging.INFO)
