"""The page of `--preview`: some training images as the service sees them, and in augmented views."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import yaml

from surgery.artifact.answer import class_colours, draw_overlay
from surgery.artifact.image import read_image
from surgery.artifact.manifest import InputSpec, OutputSpec
from surgery.config import FinetuneConfig
from surgery.data.augment import choose_steps
from surgery.data.resizing import describe_size
from surgery.data.table import Item, Table
from surgery.data.targets import IGNORE, TargetSpec
from surgery.data.transforms import View, make_view, view_seed
from surgery.report.pictures import data_uri
from surgery.report.template import read_template

TEMPLATE = "preview_page.html.j2"
IMAGES = 8
VIEWS = 5
"""Augmented views shown of an image, where there are more."""
SIDE = 448
"""Longest side of a picture on the page, in pixels."""
IGNORED = "left out of the loss"


def render_page(
    config: FinetuneConfig, table: Table, targets: TargetSpec, spec: InputSpec, scales: tuple[float, ...]
) -> str:
    """Return the page: it needs no other file and no network."""
    masks = table.task == "segment"
    shown = _shown_classes(targets) if masks else None
    views = [make_view(spec, config.augment, config.pipeline, scale) for scale in scales]
    steps = []
    if config.augment not in ("none", "flip"):
        steps = list(choose_steps(config.augment, config.pipeline, masks))
    return read_template(TEMPLATE).render(
        config=config,
        rule=_describe_input(spec),
        sizes=[describe_size(spec, scale) for scale in scales],
        colours=class_colours(shown) if shown else {},
        rest=targets.output.rest,
        steps=yaml.safe_dump(_without_aliases(steps), sort_keys=False, allow_unicode=True) if steps else "",
        images=[_show_image(item, config, table, targets, shown, views) for item in _choose_items(table)],
    )


def _show_image(
    item: Item,
    config: FinetuneConfig,
    table: Table,
    targets: TargetSpec,
    shown: OutputSpec | None,
    views: list[View],
) -> dict[str, Any]:
    """Return one image's name, its label and its pictures: the plain view and the augmented ones.

    Where the input grows, `views` has one for each size: the augmented pictures go through them.
    """
    image = read_image(item.image)
    mask = None if item.mask is None else targets.encode_mask(item.mask.read())
    augmented = {"none": 0, "flip": 1}.get(config.augment, VIEWS)
    pictures = []
    for number in range(1 + augmented):
        seed = view_seed(config.seed, table.content_hash(item), number)
        view = views[(number - 1) * len(views) // augmented] if number else views[-1]
        seen, target = view(image, mask, seed, plain=number == 0)
        if shown is not None and target is not None:
            seen = draw_overlay(seen, target, shown, opacity=0.3)
        height, width = seen.shape[:2]  # before it is made smaller
        pictures.append({"uri": data_uri(seen, SIDE), "width": width, "height": height, "number": number})
    labels = (item.labels or ()) if item.label is None else (item.label,)
    label = None if item.mask else ", ".join(targets.output.classes[k] for k in labels) or "no label"
    return {"name": table.relative(item.image), "label": label, "pictures": pictures}


def _choose_items(table: Table) -> list[Item]:
    """Return training images spread evenly over the table, so that all its classes have a chance."""
    items = table.of("train")
    count = min(IMAGES, len(items))
    return [items[k * len(items) // count] for k in range(count)]


def _shown_classes(targets: TargetSpec) -> OutputSpec:
    """Return the classes by the values that a target mask holds, with the ignored pixels as one more."""
    classes = targets.output.classes
    return dataclasses.replace(
        targets.output, classes=(*classes, IGNORED), mask_values=(*range(len(classes)), IGNORE)
    )


def _describe_input(spec: InputSpec) -> str:
    size = f"{spec.width}×{spec.height} pixels"
    rules = {
        "crop": f"the central box, resized to {size}",
        "resize": f"stretched to {size}",
        "native": "the image's own size",
    }
    return rules[spec.size_rule]


def _without_aliases(steps: Any) -> Any:
    # YAML writes what stands in two places once, and refers to it by a number that nobody can read.
    return json.loads(json.dumps(steps))
