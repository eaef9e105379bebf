"""The program beside fastai and a plain loop of torch and timm: time, accuracy and memory.

    python -m bench.peers [--parts frozen,step,decode] [--backbones …] [--seeds 5] [--peer-seeds N]

frozen: hymenoptera, 10 epochs, batches of 32 at 224×224, the same weights and images for all. What is
compared is the fit alone: `fit_one_cycle`, the tutorial's loop, and here all of training, the filling of
an empty cache included; each with its validation. `command` is everything: imports, checks, export,
parity and report of this program, imports and set-up of the peers. step: see `bench.step`; decode: see
`bench.decode`. The peers live in an environment of their own, made on the first run.

`--peer-epochs N` trains the peers that much shorter and multiplies their seconds, where a network is
too slow to wait for; their accuracy is left out then.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import platformdirs

from bench import decode, step
from bench.common import clean_room, data_folder, publish, run_command, surgery
from bench.environment import make_environment

EPOCHS, BATCH, SIZE = 10, 32, 224
BACKBONES = ("tf_efficientnet_lite0", "vgg16")
PEERS = ("fastai", "plain")
SAME = ("torch", "torchvision", "timm", "albumentations", "pillow", "numpy", "opencv-python-headless")
"""What the peers get in the very version that the program runs on."""
SCRIPTS = Path(__file__).parent / "peer_scripts"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data")
    parser.add_argument("--parts", default="frozen,step,decode")
    parser.add_argument("--backbones", default=",".join(BACKBONES))
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--peer-seeds", type=int, help="fewer for the peers; the same if not said")
    parser.add_argument("--peer-epochs", type=int, default=EPOCHS)
    parser.add_argument(
        "--workers", type=int, help="of the peers' loaders; the faster of 0 and 2 if not said"
    )
    parser.add_argument("--environment", type=Path, default=platformdirs.user_cache_path("surgery") / "peers")
    options = parser.parse_args()
    data = data_folder(options.data, "hymenoptera")
    parts = options.parts.split(",")
    python = None
    if {"frozen", "decode"} & {*parts}:
        python = make_environment(options.environment, ("fastai", "safetensors"), SAME)
    if "frozen" in parts and python:
        compare_frozen(python, data, options)
    if "step" in parts:
        step.compare(data, step.BACKBONES, BATCH, SIZE)
    if "decode" in parts and python:
        decode.compare(data, python, SIZE)


def compare_frozen(python: str, data: Path, options: argparse.Namespace) -> None:
    """Train frozen with everyone, seed by seed in turn; publish after each run."""
    single: list[dict[str, Any]] = []
    for run in train_all(python, data, options):
        single.append(run)
        title = f"{data.name}, frozen, {EPOCHS} epochs"
        publish("peers-frozen", title, summarise(single), single=single, peer_epochs=options.peer_epochs)


def train_all(python: str, data: Path, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the result of each run."""
    workers: dict[tuple[str, str], int] = {}
    peer_seeds = options.seeds if options.peer_seeds is None else options.peer_seeds
    for backbone in options.backbones.split(","):
        with tempfile.TemporaryDirectory() as scratch:
            shared = write_weights(backbone, Path(scratch))
            for seed in range(options.seeds):
                yield train_here(data, backbone, seed)
                for peer in options.peers.split(",") if seed < peer_seeds else ():
                    command = [python, str(SCRIPTS / f"{peer}_frozen.py"), "--data", str(data), *shared]
                    command += ["--batch-size", str(BATCH), "--size", str(SIZE), "--seed", str(seed)]
                    if (peer, backbone) not in workers:
                        workers[peer, backbone] = choose_workers(command, options.workers)
                    command += ["--workers", str(workers[peer, backbone])]
                    yield train_peer(command, peer, backbone, options.peer_epochs)


def write_weights(backbone: str, folder: Path) -> list[str]:
    """Write the program's own pretrained weights down; return the peers' options for them."""
    from safetensors.torch import save_file

    from surgery.nets.assemble import build_model
    from surgery.nets.weights import load_weights

    weights = load_weights(backbone, "imagenet")
    assert weights.state is not None
    save_file(weights.state, folder / "weights.safetensors")
    network = build_model(backbone, "avg", "classify", 2, None, 0.0, weights, 0).backbone
    shared = ["--backbone", backbone, "--weights", str(folder / "weights.safetensors")]
    return [*shared, "--mean", *map(str, network.mean), "--std", *map(str, network.std)]


def train_here(data: Path, backbone: str, seed: int) -> dict[str, Any]:
    """Fine-tune in an empty room."""
    with clean_room() as environment:
        done = surgery(
            environment, "finetune", data, "--name", "ants", "--backbone", backbone, "--strategy", "frozen",
            "--epochs", EPOCHS, "--batch-size", BATCH, "--image-size", f"{SIZE}x{SIZE}", "--seed", seed,
        )  # fmt: skip
        history = json.loads((Path(done.answer["path"]) / "history.json").read_text("utf-8"))["epochs"]
    return {
        "backbone": backbone,
        "who": "surgery",
        "fit s": history[-1]["seconds"],
        "command s": done.seconds,
        "accuracy": history[-1]["val"]["accuracy"],
        "best": done.answer["scores"]["scores"]["accuracy"],
        "peak MiB": done.peak_mib,
    }


def choose_workers(command: list[str], given: int | None) -> int:
    """Return with how many loading processes a peer is faster: none, or two."""
    if given is not None:
        return given
    seconds = {}
    for workers in (0, 2):
        done = run_command([*command, "--epochs", "1", "--workers", str(workers)], dict(os.environ))
        seconds[workers] = done.answer["seconds"]
    return min(seconds, key=lambda workers: seconds[workers])


def train_peer(command: list[str], peer: str, backbone: str, epochs: int) -> dict[str, Any]:
    """Train with a peer; its scores count only if it was given all epochs."""
    print("$", peer, backbone, file=sys.stderr, flush=True)
    done = run_command([*command, "--epochs", str(epochs)], dict(os.environ))
    fit, whole = done.answer["seconds"], epochs == EPOCHS
    return {
        "backbone": backbone,
        "who": peer,
        "fit s": fit * EPOCHS / epochs,
        "command s": done.seconds - fit + fit * EPOCHS / epochs,
        "accuracy": done.answer["accuracy"] if whole else None,
        "best": done.answer["best"] if whole else None,
        "peak MiB": done.peak_mib,
    }


def summarise(single: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each backbone and contestant: means over seeds, and how much longer it takes."""
    rows: list[dict[str, Any]] = []
    ours: dict[str, float] = {}
    for backbone, who in dict.fromkeys((run["backbone"], run["who"]) for run in single):
        runs = [run for run in single if (run["backbone"], run["who"]) == (backbone, who)]
        row: dict[str, Any] = {"backbone": backbone, "who": who, "seeds": len(runs)}
        for key in ("fit s", "command s", "peak MiB"):
            row[key] = statistics.median(run[key] for run in runs)
        for key in ("accuracy", "best"):
            values = [run[key] for run in runs if run[key] is not None]
            row[key] = statistics.mean(values) if values else None
            row[f"± {key}"] = statistics.stdev(values) if len(values) > 1 else None
        ours.setdefault(backbone, row["fit s"])  # the program comes first
        row["times ours"] = row["fit s"] / ours[backbone]
        rows.append(row)
    return rows


if __name__ == "__main__":
    main()
