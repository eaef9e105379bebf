"""Cars on CamVid with VGG16: frozen and partial, deconv and fpn, by the program's own defaults.

    python -m bench.camvid [--data CAMVID] [--runs frozen-deconv,…] [--leave-out 0006R0] [-- more options]

Nothing is set here but head and strategy: each row is the command that it prints. The cache starts
empty, so its filling counts. `--leave-out DRIVE` trains without the frames whose names start with
DRIVE and scores on them instead of on val (recipes are chosen that way, not on val).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from bench.common import clean_room, data_folder, publish, surgery

RUNS = ("frozen-deconv", "frozen-fpn", "partial-deconv", "partial-fpn")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data")
    parser.add_argument("--runs", default=",".join(RUNS))
    parser.add_argument("--leave-out")
    parser.add_argument("extra", nargs="*", help="more options of finetune, after --")
    options = parser.parse_args()
    data = data_folder(options.data, "camvid")
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        if options.leave_out:
            data = leave_out(data, options.leave_out, Path(scratch))
        for run in options.runs.split(","):
            strategy, head = run.split("-")
            rows.append(measure(data, head, strategy, options.extra))
            held_out = options.leave_out or "val"
            name = "camvid" if not options.leave_out else f"camvid-without-{options.leave_out}"
            publish(name, f"CamVid, IoU of car on {held_out}", rows, extra=options.extra)


def measure(data: Path, head: str, strategy: str, extra: list[str]) -> dict[str, Any]:
    """Fine-tune once in an empty room; return the row of the table."""
    with clean_room() as environment:
        done = surgery(
            environment, "finetune", data, "--name", "cars", "--task", "segment", "--classes", "car",
            "--ignore", "unlabelled", "--backbone", "vgg16", "--head", head, "--strategy", strategy, *extra,
        )  # fmt: skip
        path = Path(done.answer["path"])
        history = json.loads((path / "history.json").read_text("utf-8"))["epochs"]
        manifest = json.loads((path / "manifest.json").read_text("utf-8"))
    scores = manifest["scores"]["scores"]
    epochs = [row["seconds"] for row in history]
    return {
        "strategy": strategy,
        "head": head,
        "trained parameters": manifest["provenance"]["layers"]["trained"],
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
