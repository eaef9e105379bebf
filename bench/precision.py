"""int8 and fp16 against fp32: milliseconds of an image and points lost on val.

    python -m bench.precision [--camvid CAMVID] [--hymenoptera HYMENOPTERA] [--epochs 4] [--only cars,…]

vgg16's cars on CamVid and tf_efficientnet_lite0 on ants and bees are trained first, frozen and briefly:
what is measured is the change, not the score. resnet50 has random weights and is timed only. fp16 is
measured where there is a GPU. Times are those of the export itself (`manifest.speed`), of the network alone,
precisions in turn.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bench.common import clean_room, data_folder, publish, surgery

RUNS = ("cars", "insects", "resnet50")
TITLE = "int8 and fp16 against fp32"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--camvid")
    parser.add_argument("--hymenoptera")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--only", default=",".join(RUNS))
    parser.add_argument("--weights", default="imagenet", help="of the two that are trained")
    options = parser.parse_args()
    import torch

    precisions = ("int8", "fp16") if torch.cuda.is_available() else ("int8",)
    rows: list[dict[str, Any]] = []
    for run in options.only.split(","):
        with clean_room() as environment:
            surgery(environment, "finetune", *arguments(run, options), "--name", run)
            for precision in precisions:
                done = surgery(environment, "export", run, "--precision", precision, "--tolerance", 100)
                rows += describe(run, precision, done.answer, done.seconds)
        publish("precision", TITLE, rows)


def arguments(run: str, options: argparse.Namespace) -> list[object]:
    """Return what `surgery finetune` is told to make the model of a run."""
    brief: list[object] = ["--strategy", "frozen", "--epochs", options.epochs, "--views", 1]
    if run == "cars":
        data = data_folder(options.camvid, "camvid")
        chosen = ["--classes", "car", "--backbone", "vgg16", "--weights", options.weights]
        return [data, *chosen, *brief, *ignored(data)]
    data = data_folder(options.hymenoptera, "hymenoptera")
    if run == "insects":
        return [data, "--backbone", "tf_efficientnet_lite0", "--weights", options.weights, *brief]
    # Its answers mean nothing: one epoch of a frozen random network, to have a graph to time.
    return [data, "--backbone", "resnet50", "--weights", "random", "--strategy", "frozen", "--epochs", 1]


def ignored(data: Path) -> list[object]:
    """Return the option that leaves unlabelled pixels out, where the data names them."""
    names = data / "classes.txt"
    found = [name for name in names.read_text("utf-8").splitlines() if name in ("unlabelled", "void")]
    return ["--ignore", found[0]] if found else []


def describe(run: str, precision: str, answer: dict[str, Any], seconds: float) -> list[dict[str, Any]]:
    """Return a row for each device that was measured."""
    facts = answer["parity"]["precisions"][precision]
    judged = run != "resnet50"
    rows = []
    for device, measured in answer["speed"].items():
        times = measured["milliseconds"]
        rows.append(
            {
                "model": run,
                "precision": precision,
                "device": device,
                "input": "×".join(map(str, measured["input"])),
                "fp32 ms": times["fp32"],
                "ms": times[precision],
                "times as fast": times["fp32"] / times[precision],
                "metric": facts["metric"] if judged else None,
                "fp32": facts["fp32"] if judged else None,
                "points lost": facts["loss_points"] if judged else None,
                "answers equal": facts["answers_equal"] if judged else None,
                "layers in float": len(facts.get("left_in_float", [])),
                "layers": facts.get("layers"),
                "export s": seconds,
            }
        )
    return rows


if __name__ == "__main__":
    main()
