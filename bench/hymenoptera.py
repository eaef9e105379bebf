"""Ants and bees: frozen and gradual, vgg16 and tf_efficientnet_lite0, several seeds.

    python -m bench.hymenoptera [--data HYMENOPTERA] [--seeds 5] [--runs vgg16-frozen,…]

Accuracy on val of the stored graph (best epoch), and of the last epoch, which no score has chosen.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from bench.common import clean_room, data_folder, publish, surgery

RUNS = (
    "vgg16-frozen",
    "tf_efficientnet_lite0-frozen",
    "tf_efficientnet_lite0-gradual",
    "vgg16-gradual",
)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--runs", default=",".join(RUNS))
    parser.add_argument("extra", nargs="*", help="more options of finetune, after --")
    options = parser.parse_args()
    data = data_folder(options.data, "hymenoptera")
    rows, single = [], []
    for run in options.runs.split(","):
        backbone, strategy = run.split("-")
        with clean_room() as environment:
            results = [
                measure(environment, data, backbone, strategy, seed, options.extra)
                for seed in range(options.seeds)
            ]
        single += results
        rows.append(summarise(backbone, strategy, results))
        title = f"hymenoptera, accuracy on val over {options.seeds} seeds"
        publish("hymenoptera", title, rows, single=single, extra=options.extra)


def measure(
    environment: dict[str, str], data: Path, backbone: str, strategy: str, seed: int, extra: list[str]
) -> dict[str, Any]:
    """Fine-tune with one seed; later seeds find what earlier ones cached."""
    done = surgery(
        environment, "finetune", data, "--name", f"ants-{backbone}-{strategy}", "--backbone", backbone,
        "--strategy", strategy, "--seed", seed, *extra,
    )  # fmt: skip
    history = json.loads((Path(done.answer["path"]) / "history.json").read_text("utf-8"))["epochs"]
    return {
        "backbone": backbone,
        "strategy": strategy,
        "seed": seed,
        "accuracy": done.answer["scores"]["scores"]["accuracy"],
        "accuracy last epoch": history[-1]["val"]["accuracy"],
        "macro F1": done.answer["scores"]["scores"]["macro_f1"],
        "seconds": done.seconds,
    }


def summarise(backbone: str, strategy: str, results: list[dict[str, Any]]) -> dict[str, Any]:
    """Return mean and deviation over seeds."""
    row: dict[str, Any] = {"backbone": backbone, "strategy": strategy}
    for key in ("accuracy", "accuracy last epoch", "macro F1"):
        values = [result[key] for result in results]
        row[key] = statistics.mean(values)
        row[f"± {key}"] = statistics.stdev(values) if len(values) > 1 else 0.0
    row["worst"] = min(result["accuracy"] for result in results)
    row["seconds first"] = results[0]["seconds"]
    row["seconds later"] = results[-1]["seconds"]
    return row


if __name__ == "__main__":
    main()
