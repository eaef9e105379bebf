"""`surgery finetune --processes N`: the same command in N processes on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from surgery.config import FinetuneConfig, save_recipe


def launch(config: FinetuneConfig, resume: bool, promote: bool, as_json: bool, processes: int) -> int:
    """Run a config in several processes by torch's launcher and return its exit code.

    `accelerate launch … -m surgery finetune …` does the same over several machines.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    environment = {"OMP_NUM_THREADS": str(max(1, cores // processes))} | os.environ
    with tempfile.TemporaryDirectory(prefix="surgery-") as folder:
        recipe = Path(folder) / "recipe.yaml"
        save_recipe(config, recipe)
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", str(processes), "-m", "surgery", "finetune", "--recipe", str(recipe)]
        command += ["--resume"] * resume + ["--promote"] * promote + ["--json"] * as_json
        return subprocess.run(command, env=environment, check=False).returncode
