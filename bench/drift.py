"""The test of drift: how often it alarms without drift, and from how many images on it finds a change.

    python -m bench.drift [--digits DIGITS] [--repeats 200] [--only digits,cars]

DIGITS holds `mnist` and `mnist_m`, each with `train/` and `test/`. A small network learns `mnist`, another
one the streets of the sample set by day. Where one half of val is held against the other there is no drift,
and the share found is to be at most the false-alarm rate. Then each meets images of other domains; the digits
of `mnist/test` are those of other writers, which is a small one. A repeat draws some of at most 400 images.
The network of streets is adapted to 160 streets by night, and then meets new ones of both domains: no drift.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench.common import clean_room, data_folder, publish, surgery
from surgery.artifact.novelty import Gauge
from surgery.artifact.session import open_gauge, open_version
from surgery.artifact.store import Store
from surgery.data.samples.cars import write_cars
from surgery.data.unlabelled import find_unlabelled
from surgery.deliver.drift import find_drift
from surgery.deliver.statistics import embed, hold_out
from surgery.recipes.reading import read_as_trained
from surgery.train.reporting import Reporter

RATE = 0.05
SIZES = (10, 20, 50, 100)
POOL = 400
"""Images of each domain that repeats are drawn from."""
SCENE = (160, 120)
ADAPTED = "cars-night"
Task = tuple[Path, list[object], dict[str, Path]]
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
            data, told, domains = given
            surgery(environment, "finetune", data, *told, "--name", name, *BRIEF)
            store = Store(environment["SURGERY_MODELS"])
            names = [name]
            if name == "cars":
                night = write_cars(Path(scratch) / "target", 160, 1, "night", seed=3, size=SCENE)
                surgery(
                    environment, "adapt", name, "--target", night / "train" / "images", "--name", ADAPTED,
                    "--epochs", 4,
                )  # fmt: skip
                names.append(ADAPTED)
            for each in names:
                for row in measure(store, each, data, domains, options.repeats):
                    rows.append(row)
                    title = f"drift found at a false-alarm rate of {RATE}"
                    publish("drift", title, rows, repeats=options.repeats)


def learn_digits(argument: str | None) -> Task:
    """Return the data, what finetune is told of it, and images to compare."""
    root = data_folder(argument, "digits")
    told: list[object] = ["--backbone", "dann_digits", "--image-size", 28, "--epochs", 2]
    domains = {"mnist, other writers": root / "mnist" / "test", "mnist_m": root / "mnist_m" / "test"}
    return root / "mnist", told, domains


def draw_streets(scratch: Path) -> Task:
    """Return the data, what finetune is told of it, and images to compare."""
    data = write_cars(scratch / "data", n_train=100, n_val=100, size=SCENE)
    domains = {}
    for seed, domain in enumerate(("day", "night"), start=1):
        drawn = write_cars(scratch / domain, n_train=POOL, n_val=1, domain=domain, seed=seed, size=SCENE)
        domains["day, drawn anew" if domain == "day" else domain] = drawn / "train" / "images"
    told: list[object] = ["--classes", "car", "--backbone", "test_resnet", "--head", "fpn", "--epochs", 4]
    return data, told, domains


def measure(
    store: Store, name: str, data: Path, domains: dict[str, Path], repeats: int
) -> Iterator[dict[str, Any]]:
    """Give a row for each set of images and number of them."""
    stored = store.resolve(name)
    session = open_version(stored, "cpu")
    gauge = open_gauge(stored, session)
    assert gauge is not None
    rng, report = np.random.default_rng(0), Reporter()
    table, _ = read_as_trained(data, stored, report)

    def ask(images: list[Path], of: str) -> Any:
        return embed(session, stored.manifest, images, report, f"embeddings of {of}")

    held = np.empty((0, 0)) if name == ADAPTED else ask([item.image for item in table.of("val")], "val")

    def halves(size: int) -> tuple[Gauge, Any]:
        order = rng.permutation(len(held))
        half = len(held) // 2
        return Gauge(gauge.gaussian, hold_out(gauge.gaussian, held[order[:half]])), held[order[half:]][:size]

    def drawn(size: int, pool: Any) -> tuple[Gauge, Any]:
        return gauge, pool[rng.choice(len(pool), size, replace=False)]

    sources: dict[str, Callable[[int], tuple[Gauge, Any]]] = (
        {} if name == ADAPTED else {"val, in halves": halves}
    )
    for domain, folder in domains.items():
        images = find_unlabelled([folder]).images
        chosen = [images[k] for k in rng.permutation(len(images))[:POOL]]
        sources[domain] = functools.partial(drawn, pool=ask(chosen, domain))
    for domain, choose in sources.items():
        for size in SIZES:
            if domain == "val, in halves" and size > len(held) // 2:
                continue
            found, novel = [], []
            for seed in range(repeats):
                known, rows = choose(size)
                found.append(find_drift(known, rows, RATE, seed))
                novel += [known.novelty(row) <= RATE for row in rows]
            yield {
                "model": name,
                "images of": domain,
                "images": size,
                "drift found": float(np.mean([each.found for each in found])),
                "by distance": float(np.mean([each.distance_p <= RATE / 2 for each in found])),
                "by embedding": float(np.mean([each.embedding_p <= RATE / 2 for each in found])),
                "novelty <= 0.05": float(np.mean(novel)),
            }


if __name__ == "__main__":
    main()
