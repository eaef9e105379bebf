"""Help comes at once: nothing heavy is loaded before a command needs it."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"torch", "timm", "onnxruntime", "onnx", "albumentations", "segmentation_models_pytorch"}
HEAVY |= {"sklearn", "bentoml", "matplotlib", "accelerate", "jinja2", "joblib", "scipy"}
NEEDED_BY_THE_STORE = {"cv2", "numpy", "PIL"}


@pytest.mark.parametrize(
    ("arguments", "refused"),
    [
        ([], HEAVY | NEEDED_BY_THE_STORE),
        (["--help"], HEAVY | NEEDED_BY_THE_STORE),
        (["finetune", "--help"], HEAVY | NEEDED_BY_THE_STORE),
        (["study", "transfer", "--help"], HEAVY | NEEDED_BY_THE_STORE),
        (["models", "list"], HEAVY),
    ],
)
def test_nothing_heavy_is_loaded(arguments: list[str], refused: set[str]) -> None:
    code = (
        "import sys\n"
        "from surgery.cli import main\n"
        f"code = main({arguments!r}) if {bool(arguments)} else 0\n"
        "print(*sys.modules, file=sys.stderr)\n"
        "sys.exit(code)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    loaded = {name.partition(".")[0] for name in ran.stderr.split()}
    assert "surgery" in loaded
    assert not loaded & refused
    assert ("Usage" in ran.stdout) == ("--help" in arguments)
