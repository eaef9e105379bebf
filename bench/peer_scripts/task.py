"""What every peer is told on its command line, and how it answers: one line of JSON."""

from __future__ import annotations

import argparse
import json
from typing import Any


def read_task() -> argparse.Namespace:
    """Return the options that `bench.peers` gives to each peer."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True, help="folder with train/CLASS and val/CLASS")
    parser.add_argument("--backbone", default="")
    parser.add_argument("--weights", default="", help="safetensors under timm's names")
    parser.add_argument("--mean", type=float, nargs=3, default=(0.5, 0.5, 0.5))
    parser.add_argument("--std", type=float, nargs=3, default=(0.5, 0.5, 0.5))
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=0)
    return parser.parse_args()


def answer(**values: Any) -> None:
    """Print the result as the last line."""
    print(json.dumps(values), flush=True)
