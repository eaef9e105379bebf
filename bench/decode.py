"""Decoding and augmentation alone, on one core: images per second here and with albumentations used naively.

    python -m bench.peers --parts decode

The peer opens with Pillow, makes an array and runs the very transforms of the preset, then Normalize and
ToTensorV2: once in the preset's order, once with the crop behind the colours, as pipelines often have it.
Here the network normalises, on uint8. All is counted in processor time, which a busy machine leaves alone.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

from bench.common import ROOT, publish, run_command

PRESETS = ("light", "medium")
ROUNDS = 3


def compare(data: Path, python: str, size: int) -> None:
    """Measure both in turn on one core; publish."""
    from surgery.artifact.manifest import InputSpec
    from surgery.data.augment import fill_in, open_step
    from surgery.data.presets import LABELS

    files = sorted(path for path in (data / "train").glob("*/*") if path.suffix.lower() in (".jpg", ".png"))
    spec = InputSpec("crop", size, size)
    script = str(ROOT / "bench" / "peer_scripts" / "naive_augment.py")
    rows = []
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})  # children inherit it
    try:
        for preset in PRESETS:
            steps = [
                {name: fill_in(name, args, (size, size))} for name, args in map(open_step, LABELS[preset])
            ]
            seconds: dict[str, list[float]] = {"surgery": [], "peer": [], "peer, crop last": []}
            for _ in range(ROUNDS):
                seconds["surgery"].append(measure_here(files, spec, preset))
                for who, order in (("peer", steps), ("peer, crop last", [*steps[1:], steps[0]])):
                    command = [python, script, "--data", str(data), "--steps", json.dumps(order)]
                    seconds[who].append(run_command(command, dict(os.environ)).answer["seconds"])
            for who, values in seconds.items():
                middle = statistics.median(values)
                rows.append({"augmentation": preset, "who": who, "images/s": len(files) / middle})
                rows[-1]["times ours"] = middle / statistics.median(seconds["surgery"])
    finally:
        os.sched_setaffinity(0, cores)
    publish("peers-decode", f"{data.name}: decoding and augmentation on one core", rows)


def measure_here(files: list[Path], spec: Any, preset: str) -> float:
    """Return the seconds of processor time that the program takes for all images."""
    from surgery.artifact.image import read_image
    from surgery.data.transforms import make_view

    view = make_view(spec, preset)
    view(read_image(files[0]), None, 0)
    started = time.process_time()
    for seed, file in enumerate(files):
        view(read_image(file), None, seed)
    return time.process_time() - started
