"""surgery models compare: what a running service has found out about a candidate."""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any

from rich.console import Console
from rich.table import Table

from surgery.artifact.errors import ConfigError, ModelNotFoundError, SurgeryError, UserError
from surgery.artifact.names import check_name

TOKEN = "SURGERY_TOKEN"
TIMEOUT_S = 10.0
WIDTH = 110
SHOWN = 10
"""Disagreements that are printed; `--json` holds all that the service keeps."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def compare(name: str, url: str, token: str | None, as_json: bool) -> None:
    """Print agreement, disagreements, latencies and errors of the candidate of a model.

    Args:
        name: The model.
        url: Address of the service.
        token: What it asks for; else `$SURGERY_TOKEN`.
        as_json: Print the service's own answer, one JSON object.

    Raises:
        ConfigError: The address is none, or the token is missing or wrong.
        UserError: No service answers there.
        ModelNotFoundError: It has no such model, or nothing runs beside its production.
    """
    query = urllib.parse.urlencode({"model": check_name(name)})
    found = _get(f"{url.rstrip('/')}/compare?{query}", token or os.environ.get(TOKEN))
    if as_json:
        print(json.dumps(found))
        return
    candidate = found["candidate"]["version"]
    console = Console(width=None if Console().is_terminal else WIDTH, markup=False)
    print(
        f"{found['kind']} of {name}@{candidate} beside {name}@{found['production']['version']},"
        f" {100 * found['share']:.3g} % of the requests, since {found['since']}"
    )
    if found.get("stopped"):
        print(f"stopped: {found['stopped']}")
    console.print(_sides(found), highlight=False)
    if found["kind"] == "shadow":
        _print_agreement(found, console)
    ending = f"surgery models {found['kind']} {name} --off"
    print(f"next: surgery models promote {name} {candidate}, or {ending}", file=sys.stderr)


def _get(url: str, token: str | None) -> dict[str, Any]:
    """Return the JSON object at an address."""
    host = _host(url)
    if token is not None and not (token.isascii() and token.isprintable()):
        raise ConfigError("the token holds more than printable ASCII", f"see --token and {TOKEN}.")
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    # A redirect would take the token to wherever it leads; a proxy knows nothing of this machine's ports.
    handlers: list[Any] = [_NoRedirect()]
    handlers += [urllib.request.ProxyHandler({})] if host in LOOPBACK else []
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=TIMEOUT_S) as answer:
            found = json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            raise _refused(url, error.code, error.read(2**16)) from error
    except (OSError, ValueError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise UserError(
            f"{url}: no service answers ({reason})",
            "start it with `bentoml serve`, or say where it runs with --url.",
        ) from error
    if not isinstance(found, dict) or "candidate" not in found:
        raise UserError(f"{url}: this is another service", "say where surgery's runs with --url.")
    return found


def _host(url: str) -> str:
    try:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return parts.hostname
    except ValueError:
        pass
    raise ConfigError(f"{url} is no address of a service", "give one such as --url http://127.0.0.1:3000.")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def _refused(url: str, status: int, body: bytes) -> SurgeryError:
    """Return the error for an answer of the service that is one."""
    try:
        told = json.loads(body)["error"]
        message, hint = str(told["message"]), str(told["hint"])
    except (ValueError, TypeError, KeyError):
        message, hint = f"the answer has status {status}", "is this surgery's service?"
    if status == 401:
        return ConfigError(f"{url}: {message}", f"give --token, or set {TOKEN}.")
    if status == 404:
        return ModelNotFoundError(f"{url}: {message}", hint)
    return UserError(f"{url}: {message}", hint)


def _sides(found: Mapping[str, Any]) -> Table:
    table = Table("", "version", "answered", "errors", "p50 ms", "p95 ms", box=None)
    for who in ("production", "candidate"):
        side = found[who]
        times = [side["milliseconds"][key] for key in ("p50", "p95")]
        shown = ["" if value is None else f"{value:.1f}" for value in times]
        table.add_row(who, str(side["version"]), str(side["answered"]), str(side["errors"]), *shown)
    return table


def _print_agreement(found: Mapping[str, Any], console: Console) -> None:
    compared, agreed = found["compared"], found["agreed"]
    share = f" ({100 * agreed / compared:.1f} %)" if compared else ""
    print(f"{agreed} of {compared} answers agree{share}; {found['dropped']} images dropped")
    rows = found["disagreements"][-SHOWN:]
    if not rows:
        return
    print(f"the latest {len(rows)} that do not:")
    table = Table("sha256 of the image", "production", "candidate", box=None)
    table.columns[0].no_wrap = True
    for row in reversed(rows):
        table.add_row(row["sha256"], _brief(row["production"]), _brief(row["candidate"]))
    console.print(table, highlight=False)


def _brief(answer: Mapping[str, Any]) -> str:
    if "pixels" in answer:
        return ", ".join(f"{name} {100 * share:.1f} %" for name, share in answer["pixels"].items() if share)
    return ", ".join(f"{row['label']} {row['probability']:.2f}" for row in answer["labels"]) or "none"
