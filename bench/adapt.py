"""Domain adaptation: source only, every method, trained on the target too; several seeds.

    python -m bench.adapt digits [--data DIGITS] [--backbone tf_efficientnet_lite0] [--seeds 5]
    python -m bench.adapt camvid [--data CAMVID] [--seeds 3] [--methods dann,entropy] [-- options of adapt]
    python -m bench.adapt cars

Every command that has ended is kept with its answer in bench/out/adapt, store and runs too, as long as the
program and the recipe stay as they are: a benchmark that was stopped goes on where it was, and one of more
seeds or methods runs what is new. The labels of the target's test images are scored (`--labels`), and no
command chooses by them. In the table: mean, deviation, the worst seed on the test images of the target; their
score at the best epoch, which nobody can know without labels; and the regret of the epoch that was chosen.
`choices` is what each criterion would have chosen among all methods and epochs.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import os
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.common import OUT, ROOT, data_folder, publish, surgery
from surgery.config.choices import CRITERIA, METHODS
from surgery.data.samples.cars import write_cars

PLACE = OUT / "adapt"
UNLABELLED = 40
"""Frames of the target without labels in CamVid: the first of the drive at dusk by name."""
DUSK = "0001TP"
TARGET, TRAINED = "target", "trained on target too"
NOTHING = "none"
"""A run that learns from the source as long as the methods do, and nothing from the target."""
CARS = (
    *("--task", "segment", "--classes", "car", "--ignore", "unlabelled"),
    *("--backbone", "vgg16", "--head", "deconv", "--strategy", "partial", "--freeze-through", "stage4"),
)


@dataclass(frozen=True)
class Domain:
    """A pair of domains.

    Attributes:
        train: Options of `finetune`.
        source: Labelled data.
        both: Labelled data that a model trained on the target (too) learns from.
        target: Images of the target, used without labels.
        labelled: The target with labels.
        split: Its images that nothing is trained on, which are scored.
        methods: What is tried.
    """

    train: tuple[str, ...]
    source: Path
    both: Path
    target: Path
    labelled: Path
    split: str
    methods: tuple[str, ...]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("which", choices=sorted(DOMAINS))
    parser.add_argument("--data")
    parser.add_argument("--backbone", default="dann_digits")
    parser.add_argument("--seeds", type=int, default=0)
    parser.add_argument(
        "--methods", help="of them all, by name; `target` is trained on it, `none` on the source alone"
    )
    words = [*sys.argv[1:], "--"]
    options = parser.parse_args(words[: words.index("--")])
    extra = words[words.index("--") + 1 : -1]
    domain = DOMAINS[options.which](options)
    seeds = options.seeds or {"digits": 5}.get(options.which, 3)
    methods = options.methods.split(",") if options.methods else domain.methods
    title = f"{options.which}: {domain.source.name} to {domain.target.name}, scored on the target's test"
    file = f"adapt-{options.which}" + ("" if options.backbone == "dann_digits" else f"-{options.backbone}")
    runs: list[dict[str, Any]] = []
    for seed in range(seeds):
        name = f"{options.which}-{options.backbone}-{seed}"
        run, source = train(domain, "source only", domain.source, f"source-{name}", seed)
        runs.append(run)
        for method in methods:
            if method == TARGET:
                runs.append(train(domain, TRAINED, domain.both, f"both-{name}", seed)[0])
            else:
                runs.append(adapt(domain, source, f"adapted-{name}", method, seed, extra))
            rows, choices = summarise(runs), choose(runs)
            publish(file, title, rows, choices=choices, runs=runs, extra=extra)
    publish(
        f"{file}-choices", f"{options.which}: what each criterion chooses among all methods", choose(runs)
    )


def train(domain: Domain, row: str, data: Path, name: str, seed: int) -> tuple[dict[str, Any], str]:
    """Fine-tune and score on the target's test; return the row and the version."""
    done = ask("finetune", data, "--name", name, *domain.train, "--seed", seed)
    version = f"{name}@{done['version']}"
    scored = ask("evaluate", version, domain.labelled, "--split", domain.split)
    return {"run": row, "seed": seed, "score": main_score(scored["scores"])}, version


def adapt(
    domain: Domain, source: str, name: str, method: str, seed: int, extra: Sequence[str]
) -> dict[str, Any]:
    """Adapt the source's model by one method, by its defaults; `a>b` is by `b` what `a` came to."""
    first, _, then = method.partition(">")
    if then:
        begun = adapt(domain, source, name, first, seed, extra)["version"]
        source, name = begun, f"{begun.split('@')[0]}-then"
    word, *recipe = (then or first).split("+")
    more: list[object] = ["--recipe", ROOT / "recipes" / f"{recipe[0]}.yaml"] if recipe else []
    how = ["dann", "--strength", "0"] if word == NOTHING else [word]
    done = ask(
        "adapt", source, "--source", domain.source, "--target", domain.target, "--labels", domain.labelled,
        "--name", f"{name}-{word}", "--method", *how, "--seed", seed, *more, *extra,
    )  # fmt: skip
    page = json.loads((Path(done["path"]) / "history.json").read_text("utf-8"))["epochs"]
    epochs = [{"criteria": each["criteria"], "target": main_score(each["target"])} for each in page[1:]]
    facts = done["adaptation"]
    return {
        "run": method,
        "version": f"{done['model']}@{done['version']}",
        "seed": seed,
        "score": main_score(facts["labels"]["after"]),
        "last": epochs[-1]["target"],
        "best": max(each["target"] for each in epochs),
        "distance": facts["distance"],
        "epochs": epochs,
    }


def main_score(scores: dict[str, float]) -> float:
    """Return the score that a task is judged by."""
    return scores["iou"] if "iou" in scores else scores["accuracy"]


def summarise(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each kind of run, over its seeds."""
    rows = []
    for name in dict.fromkeys(run["run"] for run in runs):
        found = [run for run in runs if run["run"] == name]
        scores = [run["score"] for run in found]
        row = {"run": name, "seeds": len(found), "mean": statistics.mean(scores)}
        row |= {"deviation": statistics.stdev(scores) if len(scores) > 1 else None, "worst": min(scores)}
        if "best" in found[0]:
            row["last epoch"] = statistics.mean(run["last"] for run in found)
            row["best epoch"] = statistics.mean(run["best"] for run in found)
            row["regret"] = statistics.mean(run["best"] - run["score"] for run in found)
            for when in ("before", "after"):
                row[f"distance {when}"] = statistics.mean(run["distance"][when] for run in found)
        rows.append(row)
    means = {row["run"]: row["mean"] for row in rows}
    if TRAINED not in means:
        return rows
    low, high = means["source only"], means[TRAINED]
    return [row | {"gap closed": (row["mean"] - low) / (high - low)} for row in rows]


def choose(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what each criterion would have chosen among all methods and epochs, and its regret."""
    rows = []
    seeds = sorted({run["seed"] for run in runs if "epochs" in run})
    for criterion in CRITERIA:
        taken, regrets = [], []
        for seed in seeds:
            tried = [run for run in runs if run["seed"] == seed and "epochs" in run]
            every = [(each, run["run"]) for run in tried for each in run["epochs"]]
            best, method = max(every, key=lambda pair: pair[0]["criteria"][criterion])
            taken.append((best["target"], method))
            regrets.append(max(each["target"] for each, _ in every) - best["target"])
        if taken:
            rows.append(
                {
                    "criterion": criterion,
                    "seeds": len(seeds),
                    "mean": statistics.mean(score for score, _ in taken),
                    "worst": min(score for score, _ in taken),
                    "regret": statistics.mean(regrets),
                    "methods": ", ".join(method for _, method in taken),
                }
            )
    return rows


def ask(*words: object) -> dict[str, Any]:
    """Run a command of the program, or return the answer that it gave when it ran before."""
    recipes = [word.read_text("utf-8") for word in words if isinstance(word, Path) and word.suffix == ".yaml"]
    asked = json.dumps([code_digest(), *recipes, *map(str, words)])
    key = hashlib.sha256(asked.encode()).hexdigest()[:16]
    kept = PLACE / "answers" / f"{key}.json"
    if kept.exists():
        known: dict[str, Any] = json.loads(kept.read_text("utf-8"))["answer"]
        return known
    kept.parent.mkdir(parents=True, exist_ok=True)
    places = {"SURGERY_MODELS": "models", "SURGERY_RUNS": "runs", "SURGERY_CACHE": "cache"}
    environment = os.environ | {name: str(PLACE / folder) for name, folder in places.items()}
    more = ["--no-gap"] if words[0] == "evaluate" else ["--resume"]
    done = surgery(environment, *words, *more)
    aside = kept.with_suffix(".part")
    told = {"words": [str(word) for word in words], "seconds": done.seconds, "answer": done.answer}
    aside.write_text(json.dumps(told) + "\n", "utf-8")
    aside.replace(kept)
    return done.answer


@functools.cache
def code_digest() -> str:
    """Return a digest of the program: what an older one answered is no answer of this one."""
    files = sorted((ROOT / "surgery").rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def digits(options: argparse.Namespace) -> Domain:
    """MNIST to MNIST-M, by the network of Ganin & Lempitsky 2015 or a pretrained one."""
    data = data_folder(options.data, "digits")
    small = ("--backbone", "dann_digits", "--weights", "random", "--strategy", "random", "--image-size", "28")
    large = ("--backbone", options.backbone, "--strategy", "full", "--image-size", "32", "--epochs", "5")
    names = [TARGET, NOTHING, *(name for name in METHODS if name not in ("output", "adabn"))]
    if options.backbone != "dann_digits":
        names.append("adabn")
    return Domain(
        small if options.backbone == "dann_digits" else large,
        data / "mnist", data / "mnist_m", data / "mnist_m" / "train", data / "mnist_m", "test", tuple(names),
    )  # fmt: skip


def camvid(options: argparse.Namespace) -> Domain:
    """Day to dusk: the drive at dusk is left out of the source; its first frames have no labels."""
    data, out = data_folder(options.data, "camvid"), PLACE / "data" / "camvid"
    day: list[Path] = []
    dusk: list[Path] = []
    for file in sorted((data / "train" / "images").iterdir()):
        (dusk if file.name.startswith(DUSK) else day).append(file)
    for name, frames in (("day", day), ("both", day + dusk[:UNLABELLED])):
        link(out / name / "train", frames)
        link(out / name / "val", sorted((data / "val" / "images").iterdir()))
        (out / name / "classes.txt").write_text((data / "classes.txt").read_text("utf-8"), "utf-8")
    link(out / "dusk", dusk[:UNLABELLED], masks=False)
    link(out / "labelled" / "train", dusk[:UNLABELLED])
    link(out / "labelled" / "val", dusk[UNLABELLED:])
    (out / "labelled" / "classes.txt").write_text((data / "classes.txt").read_text("utf-8"), "utf-8")
    train = (*CARS, "--image-size", "240x180", "--epochs", "6")
    return masks(train, out / "day", out / "both", out / "dusk", out / "labelled")


def cars(options: argparse.Namespace) -> Domain:
    """Day to night of the sample set."""
    out = PLACE / "data" / "cars"
    if not out.exists():
        for name in ("day", "night"):
            write_cars(out / name, 120 if name == "day" else 60, 40, name, size=(192, 144))
    both = [*(out / "day/train/images").iterdir(), *(out / "night/train/images").iterdir()]
    link(out / "both" / "train", sorted(both))
    link(out / "both" / "val", sorted((out / "day" / "val" / "images").iterdir()))
    (out / "both" / "classes.txt").write_text((out / "day" / "classes.txt").read_text("utf-8"), "utf-8")
    train = (*CARS, "--epochs", "6")
    return masks(train, out / "day", out / "both", out / "night" / "train", out / "night")


def masks(train: tuple[str, ...], source: Path, both: Path, target: Path, labelled: Path) -> Domain:
    """Return two domains of masks: every method that does not need batch norm."""
    methods = (TARGET, NOTHING, *(name for name in METHODS if name != "adabn"))
    return Domain(train, source, both, target, labelled, "val", methods)


def link(folder: Path, frames: Sequence[Path], masks: bool = True) -> None:
    """Make a folder of links to frames, and to their masks."""
    for kind in ("images", "masks") if masks else ("images",):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for frame in frames:
            file = frame if kind == "images" else frame.parent.parent / "masks" / f"{frame.stem}.png"
            place = folder / kind / f"{frame.parent.parent.parent.name}-{file.name}"
            if not place.exists():
                place.symlink_to(file.resolve())


DOMAINS: dict[str, Callable[[argparse.Namespace], Domain]] = {
    "camvid": camvid,
    "cars": cars,
    "digits": digits,
}

if __name__ == "__main__":
    main()
