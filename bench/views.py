"""How many views to keep: accuracy and time by `--views`, against no cache, at the same number of epochs.

    python -m bench.views [--data HYMENOPTERA] [--views 1,2,4,8,0] [--epochs 30] [--seeds 5]

Views are kept on disk, one plain and the others augmented, and trained on in turn; `--views 0` draws
and runs a new one every epoch. Each run starts with an empty cache. Best: the epoch that val chose.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from bench.common import clean_room, data_folder, publish, surgery


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--views", default="1,2,4,8,0")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("extra", nargs="*", help="more options of finetune, after --")
    options = parser.parse_args()
    data = data_folder(options.data, "hymenoptera")
    counts = [int(word) for word in options.views.split(",")]
    runs: dict[int, list[dict[str, Any]]] = {views: [] for views in counts}
    for seed in range(options.seeds):
        for views in counts:
            runs[views].append(measure(data, options, views, seed))
            title = f"{options.backbone}, frozen, {data.name}, {options.epochs} epochs: views kept"
            publish(
                "views", title, [summarise(k, found) for k, found in runs.items() if found],
                single=[run for found in runs.values() for run in found], extra=options.extra,
            )  # fmt: skip


def measure(data: Path, options: argparse.Namespace, views: int, seed: int) -> dict[str, Any]:
    """Fine-tune once in an empty room."""
    with clean_room() as environment:
        done = surgery(
            environment, "finetune", data, "--name", "ants", "--backbone", options.backbone, "--strategy",
            "frozen", "--epochs", options.epochs, "--views", views, "--seed", seed, *options.extra,
        )  # fmt: skip
        history = json.loads((Path(done.answer["path"]) / "history.json").read_text("utf-8"))["epochs"]
    return {
        "views": views,
        "seed": seed,
        "best": done.answer["scores"]["scores"]["accuracy"],
        "last epoch": history[-1]["val"]["accuracy"],
        "val loss": history[-1]["val_loss"],
        "seconds": history[-1]["seconds"],
    }


def summarise(views: int, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return mean and deviation over seeds; of the seconds the median."""
    row: dict[str, Any] = {"views": views or "new every epoch", "seeds": len(runs)}
    for key in ("best", "last epoch", "val loss"):
        values = [run[key] for run in runs]
        row[key] = statistics.mean(values)
        row[f"± {key}"] = statistics.stdev(values) if len(values) > 1 else None
    row["training s"] = statistics.median(run["seconds"] for run in runs)
    return row


if __name__ == "__main__":
    main()
