"""VGG16 on CamVid: cars by the program's own defaults or by a recipe, all classes, and with a drive left out.

    python -m bench.camvid [--data CAMVID] [--runs frozen-deconv,…] [--leave-out 0006R0,…|all] [-- options]
    python -m bench.camvid --recipe recipes/camvid-cars.yaml --leave-out none,all

Without a recipe nothing is set but head and strategy: each row is the command that it prints. The cache
starts empty, so its filling counts; later places of a run find what earlier ones cached. `--leave-out
DRIVE` trains without the frames whose names start with DRIVE and scores on them instead of on val (recipes
are chosen that way, not on val); `all` does so with each of the three drives in turn, `none` scores on val.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from bench.common import clean_room, data_folder, publish, surgery

RUNS = ("frozen-deconv", "frozen-fpn", "partial-deconv", "partial-fpn")
DRIVES = ("0001TP", "0006R0", "0016E5")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data")
    parser.add_argument("--runs", default=",".join(RUNS))
    parser.add_argument("--recipe", help="a file of options instead of --runs")
    parser.add_argument("--leave-out", default="none")
    parser.add_argument("extra", nargs="*", help="more options of finetune, after --")
    options = parser.parse_args()
    data = data_folder(options.data, "camvid")
    places = [
        place for word in options.leave_out.split(",") for place in (DRIVES if word == "all" else [word])
    ]
    rows: list[dict[str, Any]] = []
    for name, arguments in choose_runs(options.recipe, options.runs):
        with clean_room() as environment:
            for place in places:
                row = {"run": name, "scored on": "val" if place == "none" else place}
                rows.append(row | measure(environment, data, place, [*arguments, *options.extra]))
                file = f"camvid-{name}" if options.recipe else "camvid"
                publish(file, "CamVid", rows, extra=options.extra, mean_of_drives_left_out=average(rows))
                print("mean of the drives left out:", average(rows), flush=True)


def average(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return the mean IoU of each run over the drives left out."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if row["scored on"] in DRIVES:
            found.setdefault(row["run"], []).append(row["IoU"])
    return {name: statistics.mean(values) for name, values in found.items()}


def choose_runs(recipe: str | None, runs: str) -> list[tuple[str, list[str]]]:
    """Return the name and the options of each run."""
    if recipe:
        return [(Path(recipe).stem, ["--recipe", str(Path(recipe).resolve())])]
    cars = ["--task", "segment", "--classes", "car", "--ignore", "unlabelled", "--backbone", "vgg16"]
    parts = [(run, *run.split("-")) for run in runs.split(",")]
    return [(run, [*cars, "--head", head, "--strategy", strategy]) for run, strategy, head in parts]


def measure(environment: dict[str, str], data: Path, place: str, arguments: list[str]) -> dict[str, Any]:
    """Fine-tune once; return the row of the table."""
    with tempfile.TemporaryDirectory() as scratch:
        held = data if place == "none" else leave_out(data, place, Path(scratch))
        done = surgery(environment, "finetune", held, "--name", f"streets-{place}", *arguments)
        path = Path(done.answer["path"])
        history = json.loads((path / "history.json").read_text("utf-8"))["epochs"]
        manifest = json.loads((path / "manifest.json").read_text("utf-8"))
    scores = manifest["scores"]["scores"]
    epochs = [row["seconds"] for row in history]
    return {
        "epochs": manifest["strategy"]["epochs"],
        "IoU": scores["iou"],
        "IoU last epoch": history[-1]["val"]["iou"],
        "Dice": scores["dice"],
        "IoU per image": scores["iou_per_image"],
        "before": manifest["scores"]["before"]["iou"],
        "minutes": done.seconds / 60,
        "minutes to first epoch": epochs[0] / 60,
        "s/epoch": (epochs[-1] - epochs[0]) / max(1, len(epochs) - 1),
        "parity": manifest["parity"]["max_difference"],
        "trained parameters": manifest["provenance"]["layers"]["trained"],
    }


def leave_out(data: Path, drive: str, scratch: Path) -> Path:
    """Return a data set of links: train without a drive's frames, and val made of them."""
    (scratch / "classes.txt").symlink_to((data / "classes.txt").resolve())
    for kind in ("images", "masks"):
        for split in ("train", "val"):
            (scratch / split / kind).mkdir(parents=True)
        for file in sorted((data / "train" / kind).iterdir()):
            split = "val" if file.name.startswith(drive) else "train"
            (scratch / split / kind / file.name).symlink_to(file.resolve())
    return scratch


if __name__ == "__main__":
    main()
