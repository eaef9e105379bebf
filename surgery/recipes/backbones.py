"""surgery backbones: which networks there are, their stages, and where their weights come from."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

WIDTH = 100


def list_backbones(filter: str = "", as_json: bool = False) -> None:
    """Print the backbones whose name contains FILTER.

    Args:
        filter: Part of a name; empty: all.
        as_json: Print one JSON object instead of a list.

    Raises:
        ConfigError: No name contains FILTER.
    """
    from surgery.nets.catalogue import list_backbones as find
    from surgery.nets.catalogue import sources, unknown_backbone

    names = find(f"*{filter}*")
    if not names:
        raise unknown_backbone(filter)
    rows: list[dict[str, Any]] = [
        {"name": name, "weights": [source.place for source in sources(name)]} for name in names
    ]
    if as_json:
        print(json.dumps({"backbones": rows}))
        return
    table = Table("backbone", "weights come from", box=None)
    for row in rows:
        table.add_row(row["name"], ", ".join(row["weights"]) or "nowhere: random or FILE")
    Console(width=_width()).print(table)
    Console(stderr=True).print("next: surgery backbones show NAME", highlight=False)


def show(name: str, as_json: bool = False) -> None:
    """Print a backbone's stages and where its weights would come from now; asks no network.

    Args:
        name: A timm model.
        as_json: Print one JSON object instead of a table.

    Raises:
        ConfigError: No such backbone, or one that cannot be cut into stages.
    """
    from surgery.nets.backbone import build_backbone
    from surgery.nets.weights import where_now

    where = where_now(name)
    backbone = build_backbone(name, None)
    stages = [asdict(stage) for stage in backbone.info]
    for k, stage in enumerate(stages):
        stage["pyramid"] = k in backbone.pyramid
    found = {"name": name, "stages": stages, "mean": backbone.mean, "std": backbone.std, "weights": where}
    if as_json:
        print(json.dumps(found))
        return
    Console(width=_width()).print(_stage_table(stages))
    print(f"weights now: {where}")
    print(f"input: 0–1, minus {_plain(backbone.mean)}, over {_plain(backbone.std)}")
    Console(stderr=True).print(f"next: surgery finetune DATA --name NAME --backbone {name}", highlight=False)


def _stage_table(stages: list[dict[str, Any]]) -> Table:
    table = Table("stage", box=None)
    for column in ("stride", "channels", "layers", "parameters", "for masks"):
        table.add_column(column, justify="right")
    for stage in stages:
        numbers = [f"{stage[key]:,}" for key in ("stride", "channels", "layers", "parameters")]
        table.add_row(stage["name"], *numbers, "yes" if stage["pyramid"] else "no")
    layers, parameters = (sum(stage[key] for stage in stages) for key in ("layers", "parameters"))
    table.add_row("total", "", "", f"{layers:,}", f"{parameters:,}", "")
    return table


def _plain(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _width() -> int | None:
    """The terminal's own width; a fixed one where the output is piped, so that nothing is folded."""
    return None if Console().is_terminal else WIDTH
