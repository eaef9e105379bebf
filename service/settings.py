"""Every setting of the service, each read from one environment variable."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from surgery.artifact.errors import ConfigError

BESIDE_THE_CODE = Path(__file__).resolve().parents[1] / "models"


@dataclass(frozen=True)
class Settings:
    """What an operator may set. `SURGERY_` and the name in capitals is the variable."""

    models: Path = BESIDE_THE_CODE
    """Root of the model store. By default models/ beside the code, in a checkout and in a bento."""
    device: str = "auto"
    """auto, cpu or cuda."""
    threads: int = 0
    """Threads inside one inference; 0 leaves it to onnxruntime."""
    max_body_mib: float = 32.0
    """Largest request body in MiB; past it 413."""
    max_pixels: int = 50_000_000
    """Largest image in pixels, read from its header before anything is decoded; past it 400."""
    timeout_s: float = 30.0
    """Seconds from a request's headers to its answer; past it 504, or 408 if its body is late."""
    max_concurrency: int = 64
    """Requests at work or waiting at once, probes and metrics apart; past it 429."""
    max_extra_models: int = 4
    """Versions kept loaded beside the production ones; the least recently used go."""
    poll_s: float = 1.0
    """Seconds between two looks at the store for promotions; 0 looks once, at the start."""

    def __post_init__(self) -> None:
        if problems := _problems(self):
            raise ConfigError("\n".join(problems), "docs/serving.md lists every variable.")

    @property
    def max_body_bytes(self) -> int:
        return int(self.max_body_mib * 2**20)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Return the settings that the environment asks for.

        Raises:
            ConfigError: With every variable that holds something else than it should.
        """
        values: dict[str, Any] = {}
        problems: list[str] = []
        for field in fields(cls):
            variable = f"SURGERY_{field.name.upper()}"
            text = environment.get(variable, "").strip()
            if not text:
                continue
            read = {"int": int, "float": float, "Path": Path, "str": str}[str(field.type)]
            try:
                values[field.name] = read(text)
            except ValueError:
                problems.append(f"{variable}={text!r} is not a number ({field.type})")
        try:
            settings = cls(**values)
        except ConfigError as error:
            problems.append(error.message)
        if problems:
            raise ConfigError("\n".join(problems), "docs/serving.md lists every variable.")
        return settings


def _problems(settings: Settings) -> list[str]:
    found = []
    if settings.device not in ("auto", "cpu", "cuda"):
        found.append(f"SURGERY_DEVICE={settings.device!r} is none of auto, cpu, cuda")
    for name, least in (
        ("threads", 0),
        ("max_pixels", 1),
        ("max_concurrency", 1),
        ("max_extra_models", 1),
        ("poll_s", 0),
    ):
        value = getattr(settings, name)
        if not value >= least:
            found.append(f"SURGERY_{name.upper()}={value} is below {least}")
    for name in ("max_body_mib", "timeout_s"):
        value = getattr(settings, name)
        if not 0 < value < float("inf"):
            found.append(f"SURGERY_{name.upper()}={value} is not a number above 0")
    return found
