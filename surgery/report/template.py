"""How pages are printed: every value is escaped, and a name that is missing is an error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2


def read_template(name: str) -> jinja2.Template:
    """Return a template of this folder, with the filters that write numbers for people."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    formats: dict[str, Callable[[Any], str]] = {
        "score": lambda value: f"{value:.3f}",
        "number": lambda value: f"{value:.4g}",
        "whole": lambda value: f"{value:,}",
        "percent": lambda value: f"{value:.1%}",
        "share": lambda value: "" if not value else "< 0.01 %" if value < 1e-4 else f"{value:.2%}",
    }
    environment.filters.update(formats)
    return environment.get_template(name)
