"""Seconds per epoch with and without the activation cache, on the same views; the losses must agree.

python -m bench.cache [--data DATA] [--backbone vgg16] [--epochs 3] [-- more options of finetune]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from bench.common import clean_room, data_folder, publish, surgery


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data")
    parser.add_argument("--backbone", default="vgg16")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("extra", nargs="*", help="more options of finetune, after --")
    options = parser.parse_args()
    data = data_folder(options.data, "hymenoptera")
    rows = []
    histories = []
    for cache_gib in (10, 0):
        with clean_room() as environment:
            done = surgery(
                environment, "finetune", data, "--name", "cached", "--backbone", options.backbone,
                "--epochs", options.epochs, "--cache-gib", cache_gib, *options.extra,
            )  # fmt: skip
            path = Path(done.answer["path"]) / "history.json"
            histories.append(json.loads(path.read_text("utf-8"))["epochs"])
        rows.append(summarise(cache_gib, histories[-1]))
    gaps = {
        key: max(abs(a[key] - b[key]) for a, b in zip(*histories, strict=True) if a[key] is not None)
        for key in ("train_loss", "val_loss")
    }
    publish(
        "cache", f"{options.backbone}, frozen, {data.name}: epochs with and without the cache", rows,
        largest_loss_difference=gaps, times_faster=rows[1]["s/epoch"] / rows[0]["s/epoch"],
    )  # fmt: skip
    print(f"largest difference of a loss: {gaps}")


def summarise(cache_gib: int, history: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the row of one run; an epoch is training and validation."""
    seconds = [row["seconds"] for row in history]
    return {
        "cache": "on" if cache_gib else "off",
        "s to first epoch": seconds[0],
        "s/epoch": (seconds[-1] - seconds[0]) / (len(seconds) - 1),
        "last train loss": history[-1]["train_loss"],
        "last val loss": history[-1]["val_loss"],
    }


if __name__ == "__main__":
    main()
