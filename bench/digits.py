"""Handwritten digits of the sample set by a recipe, several seeds; the split is the same for all of them.

    python -m bench.digits [--recipe recipes/digits.yaml] [--seeds 5] [--choose]

`--choose` is for choosing a recipe: val is left out, and a fifth of train takes its place.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

from bench.common import ROOT, clean_room, publish, surgery
from surgery.data.samples.digits import write_digits


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--recipe", default=str(ROOT / "recipes" / "digits.yaml"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--choose", action="store_true")
    parser.add_argument("extra", nargs="*", help="more options of finetune, after --")
    options = parser.parse_args()
    recipe = Path(options.recipe).resolve()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch, clean_room() as environment:
        data = draw(Path(scratch), options.choose)
        for seed in range(options.seeds):
            done = surgery(
                environment, "finetune", data, "--name", "digits", "--recipe", recipe, "--seed", seed,
                *options.extra,
            )  # fmt: skip
            history = json.loads((Path(done.answer["path"]) / "history.json").read_text("utf-8"))["epochs"]
            row = {"seed": seed, "accuracy": done.answer["scores"]["scores"]["accuracy"]}
            if history:
                row["accuracy last epoch"] = history[-1]["val"]["accuracy"]
            rows.append({**row, "seconds": done.seconds})
            found = [row["accuracy"] for row in rows]
            deviation = statistics.stdev(found) if len(found) > 1 else 0.0
            facts = {"mean": statistics.mean(found), "deviation": deviation, "extra": options.extra}
            publish("digits", "digits, accuracy on val", rows, **facts)
            print(f"mean {facts['mean']:.4f} ± {deviation:.4f}", flush=True)


def draw(scratch: Path, choose: bool) -> Path:
    """Return the sample with a fixed split: of each class every fifth image is val.

    To choose a recipe by, these are left out, and every fifth of the others is val.
    """
    drawn = write_digits(scratch / "drawn")
    for folder in sorted(path for path in drawn.iterdir() if path.is_dir()):
        files = sorted(folder.glob("*.png"))
        held = files[::5]
        if choose:
            files = [file for file in files if file not in set(held)]
            held = files[::5]
        for file in files:
            target = scratch / "split" / ("val" if file in set(held) else "train") / folder.name
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
    return scratch / "split"


if __name__ == "__main__":
    main()
