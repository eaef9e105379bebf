"""Images opened with Pillow and given to an albumentations pipeline, one after the other.

Runs in the peers' environment.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

import albumentations as A
import numpy as np
from albumentations.pytorch import ToTensorV2
from PIL import Image


def build(step: dict[str, Any]) -> Any:
    """Return a transform from its name and arguments."""
    ((name, args),) = step.items()
    if "transforms" in args:
        args = args | {"transforms": [build(inner) for inner in args["transforms"]]}
    return getattr(A, name)(**args)


def main() -> None:
    """Time all images of train, and print the seconds of processor time."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--steps", type=json.loads, required=True)
    options = parser.parse_args()
    files = sorted(p for p in Path(options.data, "train").glob("*/*") if p.suffix.lower() in (".jpg", ".png"))
    pipeline = A.Compose([*map(build, options.steps), A.Normalize(), ToTensorV2()])

    def load(file: Path) -> Any:
        return pipeline(image=np.array(Image.open(file).convert("RGB")))["image"]

    load(files[0])
    started = time.process_time()
    for file in files:
        load(file)
    print(json.dumps({"seconds": time.process_time() - started}), flush=True)


if __name__ == "__main__":
    main()
