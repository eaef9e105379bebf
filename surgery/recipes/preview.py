"""`surgery finetune --preview`: a page with what training would see of some images; nothing is trained."""

from __future__ import annotations

import dataclasses
import json

from surgery.artifact.disk import locked, write_whole
from surgery.artifact.store import check_name
from surgery.config import FinetuneConfig


def preview(config: FinetuneConfig, as_json: bool = False) -> None:
    """Write the page and print where it is.

    Args:
        config: The user's wishes, as for training.
        as_json: Print one JSON object on stdout.

    Raises:
        UserError: If data or options do not do, as training would.
    """
    check_name(config.name)
    from surgery.recipes.finetune import (
        check_growth,
        choose_augment,
        choose_scales,
        read_augment,
        resolve_input,
        try_augment,
    )
    from surgery.recipes.reading import read_to_train
    from surgery.report.preview_page import render_page
    from surgery.train.reporting import Reporter
    from surgery.train.run import runs_root

    report = Reporter()
    config = read_augment(config)
    table, targets = read_to_train(config, report)
    spec = resolve_input(config, table)
    check_growth(config, spec)
    try_augment(config, spec, table, targets)
    config = dataclasses.replace(config, augment=choose_augment(config, table))
    page = render_page(config, table, targets, spec, choose_scales(config, table))
    path = runs_root() / f"preview-{config.name}.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.parent):
        write_whole(path, page)
    print(json.dumps({"preview": str(path)}) if as_json else path)
    report.line("next: open it in a browser; without --preview the same command trains")
