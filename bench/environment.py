"""The peers' environment: packages that the program does not need, kept away from its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path


def make_environment(folder: Path, packages: Sequence[str], same: Sequence[str]) -> str:
    """Return the Python of an environment of peers, which is made where it is missing.

    Args:
        folder: Where it is.
        packages: What is installed in the newest version that fits.
        same: What is installed in the very version that the program runs on.
    """
    python = folder / "bin" / "python"
    ready = folder / "ready"
    if not ready.exists():
        uv = str(Path(sys.executable).parent / "uv")
        subprocess.run([uv, "venv", "--clear", "--python", sys.executable, folder], check=True)
        pinned = [f"{name}=={version(name)}" for name in same]
        command = [uv, "pip", "install", "--python", str(python), *packages, *pinned]
        subprocess.run(command, check=True, env=os.environ | package_index())
        ready.touch()
    return str(python)


def package_index() -> dict[str, str]:
    """Return pip's own index for uv, which does not read pip's configuration."""
    if "UV_DEFAULT_INDEX" in os.environ:
        return {}
    asked = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
    index = subprocess.run(asked, capture_output=True, text=True).stdout.strip()
    return {"UV_DEFAULT_INDEX": index} if index else {}
