"""surgery weights: which pretrained weights are pinned, which are in the cache, and filling it."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.table import Table

WIDTH = 120


def list_weights(as_json: bool = False) -> None:
    """Print the pinned weights, with what the cache holds of them and of others; asks no network.

    Args:
        as_json: Print one JSON object instead of a table.
    """
    from surgery.nets.catalogue import WHEELS
    from surgery.nets.weights import cache_dir, cache_path, list_cached

    rows: list[dict[str, Any]] = [
        {
            "backbone": source.backbone,
            **source.to_dict(),
            "sha256": source.sha256,
            "cached": str(cache_path(source)) if cache_path(source).is_file() else None,
        }
        for source in WHEELS
    ]
    pinned = {row["cached"] for row in rows}
    rows += [row for row in list_cached() if row["cached"] not in pinned]
    if as_json:
        print(json.dumps({"cache": str(cache_dir()), "weights": rows}))
        return
    table = Table("backbone", "source", "licence", "in the cache", box=None)
    for row in rows:
        table.add_row(row["backbone"], row["place"], row["licence"], "yes" if row["cached"] else "no")
    Console(width=None if Console().is_terminal else WIDTH).print(table)
    print(f"cache: {cache_dir()}")
    Console(stderr=True).print(
        "every other backbone's weights come from the hub that timm names\n"
        "next: surgery weights pull BACKBONE, or surgery backbones show BACKBONE",
        highlight=False,
    )


def pull(backbone: str) -> None:
    """Fetch a backbone's weights into the cache and print the file.

    Args:
        backbone: A timm model.

    Raises:
        WeightsError: They cannot be had; says what each place answered.
    """
    from surgery.nets.weights import pull as fill

    console = Console(stderr=True)
    with console.status(f"fetching the weights of {backbone}"):
        path = fill(backbone)
    print(path)
    console.print(f"next: surgery finetune DATA --name NAME --backbone {backbone}", highlight=False)
