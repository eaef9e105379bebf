"""The studies on real images, each beside what its paper found: table, JSON, and the figures of the guide.

    python -m bench.studies [--data FOLDER] [--parts transfer,memorise,shuffle] [--figures docs/studies]

What has been trained before is not trained again: the answers lie in $SURGERY_RUNS/studies.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.common import publish

GROUPS = {
    "man-made": ["airplane", "automobile", "ship", "truck"],
    "natural": ["bird", "cat", "deer", "dog", "frog", "horse"],
}
"""Of CIFAR-10, as the paper splits ImageNet (figure 3)."""
TRANSFER = ("--seeds", 3, "--epochs", 8, "--per-class", 300)
MEMORISE = ("--seeds", 3, "--per-class", 30)
SHUFFLE = (
    "--seeds", 3, "--epochs", 5, "--image-size", 96, "--per-class", 60, "--blocks", "96,48,24,12,6",
    "--batch-size", 16,
)  # fmt: skip
FIGURE_WIDTH, FIGURE_QUALITY = 660, 82


def main() -> None:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("SURGERY_DATA"))
    parser.add_argument("--parts", default="transfer,memorise,shuffle")
    parser.add_argument("--figures", type=Path, help="folder that gets the figures, small")
    options = parser.parse_args()
    if not options.data:
        sys.exit(
            "say where the data is: --data FOLDER, or SURGERY_DATA=…, with cifar10/ and hymenoptera/ in it"
        )
    data, rows = Path(options.data), []
    with tempfile.TemporaryDirectory() as scratch:
        for part in options.parts.split(","):
            for name, arguments in commands(part, data, Path(scratch)):
                out = Path(scratch) / name
                found = ask(*arguments, "--out", out)
                rows += compare(name, found)
                publish("studies", "studies, the papers' findings and ours", rows)
                if options.figures:
                    shrink(out / "figure.png", options.figures / f"{name}.webp")


def commands(part: str, data: Path, scratch: Path) -> list[tuple[str, tuple[Any, ...]]]:
    """Return the commands of a part, and what their figures are called."""
    cifar = data / "cifar10"
    if part == "transfer":
        groups = scratch / "groups.yaml"
        groups.write_text(json.dumps(GROUPS), "utf-8")  # JSON is YAML
        return [
            ("transfer-groups", ("transfer", cifar, "--split", groups, *TRANSFER)),
            ("transfer-random", ("transfer", cifar, "--layers", "1,3,5,7", *TRANSFER)),
        ]
    if part == "memorise":
        digits = data / "digits" / "mnist"
        return [(f"memorise-{each.name}", ("memorise", each, *MEMORISE)) for each in (digits, cifar)]
    if part == "shuffle":
        return [("shuffle", ("shuffle", data / "hymenoptera", *SHUFFLE))]
    sys.exit(f"--parts {part}: there is transfer, memorise, shuffle")


def ask(*arguments: object) -> dict[str, Any]:
    """Run a study in this process, its progress on stderr, and return its JSON."""
    import contextlib
    import io

    from surgery.cli import main as run

    print("$ surgery study", *arguments, file=sys.stderr, flush=True)
    started, printed = time.monotonic(), io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = run(["study", *map(str, arguments), "--json"])
    if code:
        sys.exit(f"the study failed with exit code {code}")
    found: dict[str, Any] = json.loads(printed.getvalue())
    print(*found["sentences"], f"{time.monotonic() - started:.0f} s", sep="\n", file=sys.stderr)
    return found


def compare(name: str, found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what the paper found, what we did, and whether they agree."""
    if name.startswith("transfer"):
        return [{"study": name, **row} for row in found["signs"]]
    if name.startswith("memorise"):
        return compare_memorise(name, found)
    return compare_shuffle(name, found)


def compare_memorise(name: str, found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the findings of Zhang et al. 2017, and ours."""
    conditions = found["conditions"]
    noise = [
        conditions[key] for key in ("random labels", "shuffled pixels", "random pixels", "gaussian images")
    ]
    errors = [each["train_error"]["mean"] for each in noise]
    gaps = [
        conditions[key]["gap"]["mean"]
        for key in ("true labels", "a quarter random", "half random", "random labels")
    ]
    true, random = (conditions[key]["epochs_to_fit"] for key in ("true labels", "random labels"))
    slower = random["mean"] / true["mean"] if true and random else None
    regularised = [row for key, row in conditions.items() if key.startswith("random labels, ")]
    kept = [row["train_error"]["mean"] for row in regularised]
    rows = [
        {
            "paper": "random labels and pixels are fitted",
            "ours": f"training error {max(errors):.3f} at most",
            "agrees": agreement(max(errors) <= 0.02),
        },
        {
            "paper": "fitting random labels takes a small factor longer",
            "ours": "not fitted in the epochs there are"
            if slower is None
            else f"{slower:.1f} times as many epochs",
            "agrees": "open" if slower is None else agreement(slower > 1),
        },
        {
            "paper": "the gap grows with the share of random labels",
            "ours": ", ".join(f"{gap:.2f}" for gap in gaps) + " for 0, 1/4, 1/2, all",
            "agrees": agreement(gaps == sorted(gaps)),
        },
        {
            "paper": "regularisers do not keep random labels from being fitted",
            "ours": "training error "
            + ", ".join(f"{error:.2f}" for error in kept)
            + " with augmentation, weight decay, dropout",
            "agrees": agreement(max(kept) <= 0.05),
        },
    ]
    return [{"study": name, **row} for row in rows]


def compare_shuffle(name: str, found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the findings of Neyshabur et al. 2020, section 3.1."""
    gains = found["gain"]
    shown = ", ".join(f"{b}: {g['mean']:+.3f}" for b, g in zip(found["blocks"], gains, strict=True))
    change = found["change"]
    return [
        {
            "study": name,
            "paper": "the gain of pretraining falls with the size of the blocks",
            "ours": shown,
            "agrees": agreement(change["mean"] < 0) if change["mean"] + change["half"] < 0 else "open",
        },
        {
            "study": name,
            "paper": "some gain is left with the smallest blocks",
            "ours": f"{gains[-1]['mean']:+.3f} ± {gains[-1]['half']:.3f}",
            "agrees": agreement(True) if gains[-1]["mean"] - gains[-1]["half"] > 0 else "open",
        },
    ]


def agreement(agrees: bool) -> str:
    """Return it in a word."""
    return "agrees" if agrees else "disagrees"


def shrink(figure: Path, target: Path) -> None:
    """Write a figure as a small picture for the guide."""
    from PIL import Image

    target.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(figure) as image:
        height = round(image.height * FIGURE_WIDTH / image.width)
        small = image.convert("RGB").resize((FIGURE_WIDTH, height), Image.Resampling.LANCZOS)
        small.save(target, quality=FIGURE_QUALITY, method=6)


if __name__ == "__main__":
    main()
