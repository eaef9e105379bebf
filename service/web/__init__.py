"""The page at /: one file without foreign parts, and the rule that lets a browser run that file alone."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path

PAGE = Path(__file__).with_name("page.html")


@cache
def page() -> tuple[bytes, str]:
    """Return the body of the page and the value of its Content-Security-Policy.

    The policy names the digest of each inline block, so nothing else runs: no script or style of another
    host, and none that somehow got into the page.
    """
    # A browser reads line ends as \n before it digests a block; a checkout may have others.
    text = PAGE.read_text("utf-8").replace("\r\n", "\n")
    rules = {
        "default-src": "'none'",
        "script-src": _digests(text, "script"),
        "style-src": _digests(text, "style"),
        "img-src": "'self' data: blob:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'self'",
        "frame-ancestors": "'none'",
    }
    return text.encode(), "; ".join(f"{name} {value}" for name, value in rules.items())


def seal(text: str) -> str:
    """Return the Content-Security-Policy of a page that runs nothing and asks nobody."""
    rules = {
        "default-src": "'none'",
        "style-src": _digests(text, "style"),
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _digests(text: str, tag: str) -> str:
    """Return a source for each inline block of a tag, as CSP level 2 writes them."""
    blocks: list[str] = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    hashes = [hashlib.sha256(block.encode()).digest() for block in blocks]
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in hashes)
