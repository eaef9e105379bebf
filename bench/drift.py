"""The test of drift: how often it alarms without drift, and from how many images on it finds a change.

    python -m bench.drift [--digits DIGITS] [--repeats 200] [--only digits,cars]

DIGITS holds `mnist` and `mnist_m`, each with `train/` and `test/`. A small network learns `mnist`, another
one the streets of the sample set by day. Each then meets images of its own domain that nothing was fitted on,
and of the other domain; a repeat draws some of them. Without drift the share found is to be at most the
false-alarm rate.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench.common import clean_room, data_folder, publish, surgery
from surgery.artifact.session import open_gauge, open_version
from surgery.artifact.store import Store
from surgery.data.samples.cars import write_cars
from surgery.data.unlabelled import find_unlabelled
from surgery.deliver.drift import find_drift
from surgery.deliver.statistics import embed
from surgery.train.reporting import Reporter

RATE = 0.05
SIZES = (10, 20, 50, 100)
POOL = 400
"""Images of each domain that repeats are drawn from."""
SCENE = (160, 120)
BRIEF = ("--strategy", "random", "--weights", "random", "--augment", "none")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--digits")
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--only", default="digits,cars")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name in options.only.split(","):
        with tempfile.TemporaryDirectory() as scratch, clean_room() as environment:
            given = learn_digits(options.digits) if name == "digits" else draw_streets(Path(scratch))
            arguments, domains = given
            surgery(environment, "finetune", *arguments, "--name", name, *BRIEF)
            store = Store(environment["SURGERY_MODELS"])
            for row in measure(store, name, domains, options.repeats):
                rows.append(row)
                publish(
                    "drift", f"drift found at a false-alarm rate of {RATE}", rows, repeats=options.repeats
                )


def learn_digits(argument: str | None) -> tuple[list[object], dict[str, Path]]:
    """Return what finetune is told, and the images of both domains."""
    root = data_folder(argument, "digits")
    told: list[object] = [root / "mnist", "--backbone", "dann_digits", "--image-size", 28, "--epochs", 2]
    return told, {"mnist": root / "mnist" / "test", "mnist_m": root / "mnist_m" / "test"}


def draw_streets(scratch: Path) -> tuple[list[object], dict[str, Path]]:
    """Return what finetune is told, and the images of both domains."""
    data = write_cars(scratch / "data", n_train=100, n_val=100, size=SCENE)
    domains = {}
    for seed, name in enumerate(("day", "night"), start=1):
        drawn = write_cars(scratch / name, n_train=POOL, n_val=1, domain=name, seed=seed, size=SCENE)
        domains[name] = drawn / "train" / "images"
    told: list[object] = [data, "--classes", "car", "--backbone", "test_resnet", "--head", "fpn"]
    return [*told, "--epochs", 4], domains


def measure(store: Store, name: str, domains: dict[str, Path], repeats: int) -> Iterator[dict[str, Any]]:
    """Give a row for each domain and number of images."""
    stored = store.resolve(name)
    session = open_version(stored, "cpu")
    gauge = open_gauge(stored, session)
    assert gauge is not None
    rng = np.random.default_rng(0)
    for domain, folder in domains.items():
        images = find_unlabelled([folder]).images
        chosen = [images[k] for k in rng.permutation(len(images))[:POOL]]
        pool = embed(session, stored.manifest, chosen, Reporter(), f"embeddings of {domain}")
        for size in SIZES:
            picks = [rng.choice(len(pool), size, replace=False) for _ in range(repeats)]
            found = [find_drift(gauge, pool[pick], RATE, seed) for seed, pick in enumerate(picks)]
            yield {
                "model": name,
                "held out": len(gauge.held_out.calibration),
                "images of": domain,
                "images": size,
                "found": float(np.mean([each.found for each in found])),
                "by distance": float(np.mean([each.distance_p <= RATE / 2 for each in found])),
                "by embedding": float(np.mean([each.embedding_p <= RATE / 2 for each in found])),
                "beyond 95 %": float(np.mean([each.beyond for each in found])),
            }


if __name__ == "__main__":
    main()
