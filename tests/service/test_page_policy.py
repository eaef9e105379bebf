"""The page's rule for browsers names what is in the file, and nothing else may run."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import pytest

from service import web


def test_the_policy_names_the_digest_of_each_inline_block() -> None:
    body, policy = web.page()
    for tag in (b"script", b"style"):
        (block,) = re.findall(rb"<%s>(.*?)</%s>" % (tag, tag), body, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(block).digest()).decode()
        assert f"{tag.decode()}-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy


def test_the_policy_follows_the_file_whatever_its_line_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "page.html"
    monkeypatch.setattr(web, "PAGE", file)
    read = web.page.__wrapped__
    file.write_bytes(b"<style>a\nb</style><script>1\n2</script>")
    body, policy = read()
    file.write_bytes(b"<style>a\r\nb</style><script>1\r\n2</script>")
    assert read() == (body, policy)
    file.write_bytes(b"<style>a\nb</style><script>1\n3</script>")
    assert read()[1] != policy


def test_the_page_is_whole_by_itself() -> None:
    text = web.page()[0].decode()
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", text)
    assert not re.search(r"\sstyle\s*=|\son[a-z]+\s*=\s*[\"']|@import|url\(", text)
    assert "innerHTML" not in text
