"""`surgery study transfer`: how far up a network's layers are general, on anybody's classes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from surgery.artifact.errors import ConfigError
from surgery.config.study import StudyConfig

if TYPE_CHECKING:
    from surgery.study.result import Result
    from surgery.train.reporting import Reporter

BATCH = 64
SIZE, EPOCHS = 32, 10
NETWORK = "yosinski_small"


def transfer(
    config: StudyConfig,
    split: str = "random",
    network: str = NETWORK,
    layers: tuple[int, ...] = (),
    as_json: bool = False,
) -> None:
    """Train two halves of the classes, and each from the other's layers.

    Args:
        config: What all studies are told.
        split: `random`, or a YAML file of two named groups of classes.
        network: A backbone, trained from random weights.
        layers: Numbers of layers to copy; () for all.
        as_json: Print one JSON object on stdout.

    Raises:
        UserError: If data, groups or options do not do.
    """
    from surgery.recipes.studying import run_study

    run_study(
        config,
        "transfer",
        lambda folder, report: ask(config, split, network, layers, folder, report),
        as_json,
    )


def ask(
    config: StudyConfig, split: str, network: str, layers: tuple[int, ...], folder: Path, report: Reporter
) -> Result:
    """Run the trainings and return what they say."""
    from surgery.recipes.studying import run_trainings, take_pictures
    from surgery.study import transfer as study
    from surgery.study.fitting import Recipe

    drawn = split == "random"
    groups = {} if drawn else read_groups(Path(split))
    pictures, digest = take_pictures(config, network, SIZE, folder, report)
    if drawn and len(pictures.classes) < 4:
        raise ConfigError(
            f"{config.data}: {len(pictures.classes)} classes cannot be split into halves of two or more",
            "Give data of four classes at least.",
        )
    if drawn:
        halves = [study.draw_halves(pictures.classes, seed) for seed in range(config.seeds)]
    else:
        pair = tuple(study.check_groups(groups, pictures.classes, split).values())
        halves = [(pair[0], pair[1])] * config.seeds
    layers = choose_layers(network, layers)
    recipe = Recipe(config.epochs or EPOCHS, config.batch_size or BATCH, device=config.device)
    bases = study.list_bases(digest, network, halves, recipe)
    study.forget_lost(bases, folder)
    report.line(f"{len(bases)} bases, then what begins with their layers")
    answers = run_trainings(bases, study.run_transfer, config, folder, report)
    answers |= run_trainings(study.list_trainings(bases, layers), study.run_transfer, config, folder, report)
    named = "random halves" if drawn else " and ".join(groups)
    title = f"transfer on {Path(config.data).resolve().name}, {named}"
    return study.report(study.summarise(answers, layers), answers, title)


def choose_layers(network: str, layers: tuple[int, ...]) -> tuple[int, ...]:
    """Return the numbers of layers that are copied, rising.

    Raises:
        ConfigError: If the network has no such layer.
    """
    from surgery.study.fitting import make_network

    count = len(make_network(network, 2, 0.0, None, 0).backbone.stages)
    wrong = [n for n in layers if not 1 <= n <= count]
    if wrong:
        raise ConfigError(
            f"--layers {', '.join(map(str, wrong))}: {network} has the layers 1 to {count}",
            f"See `surgery backbones show {network}`.",
        )
    return tuple(sorted(set(layers))) or tuple(range(1, count + 1))


def read_groups(path: Path) -> dict[str, list[str]]:
    """Return what a YAML file of groups holds, unchecked.

    Raises:
        ConfigError: If it is not YAML, not there, or empty.
    """
    import yaml

    hint = "Two names with a list of classes each, such as `natural: [bird, cat]`."

    try:
        found: dict[str, list[str]] | None = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"--split {path}: neither random nor a YAML file of groups ({error})", hint
        ) from error
    if found is None:
        raise ConfigError(f"--split {path}: the file is empty", hint)
    return found
