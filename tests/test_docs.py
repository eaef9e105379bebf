"""The documents hold what they promise: commands that exist, links that lead somewhere, small pictures."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from surgery.cli import app, main

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "models" / "README.md"])
PLACEHOLDERS = {"VERSION": "1", "DATA": "data", "FILE": "file"}
LIGHT = {"surgery backbones show vgg16", "surgery weights list", "surgery models list"}


def commands() -> dict[str, Path]:
    """Return each `surgery …` command of the documents, in blocks and between backticks, and its page."""
    found: dict[str, Path] = {}
    for page in PAGES:
        text = page.read_text("utf-8").replace("\\\n", " ")
        block = re.findall(r"^(?: {4}|\$ )(?:\.venv/bin/)?(surgery .*)$", text, re.MULTILINE)
        inline = re.findall(r"(?<!`)`(surgery [^`\n]*)`(?!`)", text)
        for command in [*block, *inline]:
            words = command.split("#")[0].split()
            if not {"…", "COMMAND", "|"} & set(words) and "…" not in command:
                found.setdefault(" ".join(words), page)
    return found


def test_the_documents_name_the_main_commands() -> None:
    named = {" ".join(command.split()[:2]) for command in commands()}
    wanted = ("finetune", "evaluate", "predict", "export", "models", "backbones", "weights", "data")
    assert {f"surgery {word}" for word in wanted} <= named


@pytest.mark.parametrize("command", sorted(commands()))
def test_a_command_of_the_documents_is_one(command: str) -> None:
    tokens = [PLACEHOLDERS.get(word, word) for word in shlex.split(command)[1:]]
    if tokens[-1:] == ["--help"]:
        tokens.pop()
    complete = len(tokens) > (2 if tokens[0] in ("models", "backbones", "weights", "data", "study") else 1)
    if complete:
        app.parse_args(tokens, exit_on_error=False, print_error=False)
    else:  # only its name is mentioned
        app.parse_commands(tokens)
        group = app[tokens[0]]
        assert len(tokens) == 1 or group[tokens[1]]


@pytest.mark.parametrize("command", sorted(LIGHT))
def test_a_light_command_of_the_documents_runs(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command in commands()
    assert main(shlex.split(command)[1:]) == 0
    printed = capsys.readouterr()
    assert "next: " in printed.err


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_pictures_are_few_and_small() -> None:
    pictures = list((ROOT / "docs" / "images").iterdir())
    text = "".join(page.read_text("utf-8") for page in PAGES)
    assert all(f"images/{picture.name}" in text for picture in pictures)
    assert sum(picture.stat().st_size for picture in pictures) < 300_000
