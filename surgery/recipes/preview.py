"""`surgery finetune --preview`: a page with what training would see of some images; nothing is trained."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surgery.artifact.store import Store, check_name
from surgery.config import FinetuneConfig

if TYPE_CHECKING:
    from surgery.artifact.manifest import InputSpec, OutputSpec
    from surgery.data.table import Item, Table
    from surgery.data.targets import TargetSpec
    from surgery.data.transforms import View

IMAGES = 8
VIEWS = 5
"""Augmented views shown of an image, where there are more."""
SIDE = 448
"""Longest side of a picture on the page, in pixels."""
IGNORED = "left out of the loss"


def preview(config: FinetuneConfig, as_json: bool = False) -> None:
    """Write the page and print where it is.

    Args:
        config: The user's wishes, as for training.
        as_json: Print one JSON object on stdout.

    Raises:
        UserError: If data or options do not do, as training would.
    """
    check_name(config.name)
    from surgery.data.targets import resolve_target
    from surgery.recipes.finetune import (
        check_growth,
        choose_augment,
        choose_scales,
        read_augment,
        resolve_input,
        try_augment,
    )
    from surgery.recipes.reading import earlier_split, read_checked
    from surgery.train.reporting import Reporter
    from surgery.train.run import runs_root

    report = Reporter()
    config = read_augment(config)
    table, targets = read_checked(
        Path(config.data), config.task, lambda table: resolve_target(table, config.classes, config.ignore),
        report, config.val_share, config.seed, config.skip_bad,
        earlier_split(Store(), config.name, Path(config.data)), config.format,
    )  # fmt: skip
    spec = resolve_input(config, table)
    check_growth(config, spec)
    try_augment(config, spec, table, targets)
    config = dataclasses.replace(config, augment=choose_augment(config, table))
    page = render_page(config, table, targets, spec, choose_scales(config, table))
    path = runs_root() / f"preview-{config.name}.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, "utf-8")
    print(json.dumps({"preview": str(path)}) if as_json else path)
    report.line("next: open it in a browser; without --preview the same command trains")


def render_page(
    config: FinetuneConfig, table: Table, targets: TargetSpec, spec: InputSpec, scales: tuple[float, ...]
) -> str:
    """Return the page: it needs no other file and no network."""
    import jinja2
    import yaml

    from surgery.artifact.answer import class_colours
    from surgery.data.augment import choose_steps
    from surgery.data.resizing import describe_size
    from surgery.data.transforms import make_view

    masks = table.task == "segment"
    shown = _shown_classes(targets) if masks else None
    views = [make_view(spec, config.augment, config.pipeline, scale) for scale in scales]
    steps = []
    if config.augment not in ("none", "flip"):
        steps = list(choose_steps(config.augment, config.pipeline, masks))
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    pages = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    return pages.get_template("preview.html").render(
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
    from surgery.artifact.answer import draw_overlay
    from surgery.artifact.image import read_image
    from surgery.data.transforms import view_seed

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
        pictures.append(_encode_picture(seen) | {"number": number})
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
    from surgery.data.targets import IGNORE

    classes = targets.output.classes
    return dataclasses.replace(
        targets.output, classes=(*classes, IGNORED), mask_values=(*range(len(classes)), IGNORE)
    )


def _encode_picture(pixels: Any) -> dict[str, Any]:
    """Return an RGB picture (h, w, 3) as a data URI, with its size before it was made smaller."""
    from PIL import Image

    picture = Image.fromarray(pixels)
    width, height = picture.size
    picture.thumbnail((SIDE, SIDE))
    data = io.BytesIO()
    picture.save(data, "WEBP", quality=85)
    uri = "data:image/webp;base64," + base64.b64encode(data.getvalue()).decode()
    return {"uri": uri, "width": width, "height": height}


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
