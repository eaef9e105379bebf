"""`surgery finetune --processes N`: the same command in N processes on this machine."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import uuid
from pathlib import Path

from surgery.config import FinetuneConfig, save_recipe

TOLD = "SURGERY_ERROR_TOLD"
"""Variable with the file that the first process to tell of an error as JSON makes."""


def launch(config: FinetuneConfig, resume: bool, promote: bool, as_json: bool, processes: int) -> int:
    """Run a config in several processes by torch's launcher and return its exit code.

    `accelerate launch … -m surgery finetune …` does the same over several machines.
    """
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    from surgery.artifact.graph import available_cores

    cores = available_cores()
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // processes)))
    logging.getLogger("torch.distributed.elastic").setLevel(
        logging.CRITICAL
    )  # the processes say it themselves
    machine = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=processes, run_id=uuid.uuid4().hex, rdzv_backend="c10d",
        rdzv_endpoint="localhost:0", max_restarts=0,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="surgery-") as folder:
        recipe = Path(folder) / "recipe.yaml"
        save_recipe(config, recipe)
        os.environ[TOLD] = str(Path(folder) / "told")
        command = ["-m", "surgery", "finetune", "--recipe", str(recipe)]
        command += ["--resume"] * resume + ["--promote"] * promote + ["--json"] * as_json
        try:
            elastic_launch(machine, sys.executable)(*command)
        except ChildFailedError as error:
            return int(error.get_first_failure()[1].exitcode)
        finally:
            del os.environ[TOLD]
    return 0


def tells_first() -> bool:
    """Return whether no other process of the run has told yet why it ends; all may for the same reason."""
    told = os.environ.get(TOLD)
    if told is None:
        return True
    try:
        os.close(os.open(told, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True
