"""What a run is about to do, in words."""

from __future__ import annotations

from typing import Any

from surgery.artifact.manifest import InputSpec
from surgery.config import FinetuneConfig
from surgery.data.resizing import describe_size
from surgery.data.targets import TargetSpec
from surgery.nets.assemble import Model, describe_layers
from surgery.train.reporting import Reporter
from surgery.train.strategies import Phase


def describe_views(config: FinetuneConfig, frozen: bool) -> str:
    """Return in words what a phase, of which a part is frozen or not, sees of an image."""
    if config.augment == "none" or (frozen and config.views == 1):
        return "each image as it is"
    kept = f"{config.views} views kept of an image" if frozen and config.views else "new views every epoch"
    if config.pipeline is None:
        return f"augmentation {config.augment}, {kept}"
    from surgery.data.augment import describe_steps

    return f"augmentation of your own ({describe_steps(config.pipeline)}), {kept}"


def describe_growth(phase: Phase, spec: InputSpec) -> str:
    """Return in words how the input of a phase grows: `; 128×128, from epoch 11 on 224×224`."""
    if len(phase.scales) == 1:
        return ""
    begins: dict[str, int] = {}
    for begin, scale in phase.growth:
        begins.setdefault(describe_size(spec, scale), begin)  # rounding may make two sizes one
    told = [f"from epoch {begin + 1} on {size}" if begin else size for size, begin in begins.items()]
    return "; " + ", ".join(told)


def show_layers(
    config: FinetuneConfig, targets: TargetSpec, model: Model, first: int, report: Reporter
) -> dict[str, Any]:
    """Print what is kept, frozen, retrained and new, in layers and parameters; return it.

    Args:
        first: First stage that is ever trained; the number of stages if none is.
    """
    layers = describe_layers(model, first, config.weights != "random")
    report.line(f"{config.task}: {', '.join(targets.output.classes)}")
    report.line(f"{config.backbone} from {config.weights}, head {config.head}, strategy {config.strategy}")
    for part in layers["parts"]:
        size = f"{part['layers']:>4} layers{part['parameters']:>12,} parameters"
        report.line(f"  {part['name']:<12}{size}  {part['fate']}")
    report.line(f"  {layers['trained']:,} parameters are trained")
    return layers


def show_phases(config: FinetuneConfig, phases: tuple[Phase, ...], spec: InputSpec, report: Reporter) -> None:
    """Print what is trained when, and on what."""
    for phase in phases:
        views = describe_views(config, phase.first > 0)
        grown = describe_growth(phase, spec)
        report.line(f"phase {phase.name}: {phase.epochs} epochs, rate {phase.lr:g}, {views}{grown}")
