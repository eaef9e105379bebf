"""The commands of `surgery study`; like the others they import what they need when they run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Group, Parameter

from surgery.cli_options import Device, Json, Names, option

study_app = App(name="study", help="Studies: what a network knows, and what the data has to teach.")

STUDY = Group("Study", sort_key=1)
TRAININGS = Group("All studies", sort_key=2)


@dataclass(frozen=True)
class Common:
    """What every study takes."""

    seeds: Annotated[int, option(TRAININGS, "Repeats; intervals are over them.")] = 3
    epochs: Annotated[int | None, option(TRAININGS, "Passes over the images of each training.")] = None
    image_size: Annotated[int | None, option(TRAININGS, "Side of the square input, pixels.")] = None
    per_class: Annotated[int | None, option(TRAININGS, "Images of a class at most.")] = None
    batch_size: Annotated[int | None, option(TRAININGS, "Images per step.")] = None
    jobs: Annotated[int, option(TRAININGS, "Trainings at a time.")] = 1
    backend: Annotated[str, option(TRAININGS, "loky (processes), dask or ray.")] = "loky"
    device: Annotated[Device, option(TRAININGS, "Where to train.")] = "auto"
    out: Annotated[Path | None, option(TRAININGS, "Folder of the result.")] = None
    as_json: Annotated[
        bool, Parameter(name="--json", group=TRAININGS, negative=(), help="Print one JSON object on stdout.")
    ] = False

    def config(self, data: str) -> Any:
        """Return the options as the recipes take them."""
        from surgery.config.study import StudyConfig

        given = {key: value for key, value in vars(self).items() if key != "as_json"}
        return StudyConfig(data, **given)


Data = Annotated[str, Parameter(help="Folder of the data set, or a CSV file.")]
Options = Annotated[Common, Parameter(name="*")]
PLAIN = Common()


def numbers(text: str | None) -> tuple[int, ...]:
    """Return the whole numbers of a list with commas.

    Raises:
        ConfigError: If one is none.
    """
    from surgery.artifact.errors import ConfigError

    try:
        return tuple(int(part) for part in (text or "").split(",") if part.strip())
    except ValueError:
        raise ConfigError(f"{text!r} is no list of whole numbers", "For example 1,2,3.") from None


@study_app.command
def transfer(
    data: Data,
    *,
    split: Annotated[str, option(STUDY, "random, or a YAML file of two groups of classes.")] = "random",
    network: Annotated[str, option(STUDY, "A backbone, trained from random weights.")] = "yosinski_small",
    layers: Annotated[str | None, option(STUDY, "How many layers are copied, such as 1,3,5.")] = None,
    common: Options = PLAIN,
) -> None:
    """How far up the layers are general: train halves of the classes from each other's layers."""
    from surgery.recipes.study_transfer import transfer as run

    run(common.config(data), split, network, numbers(layers), common.as_json)


@study_app.command
def memorise(
    data: Data,
    *,
    network: Annotated[str, option(STUDY, "A backbone, trained from random weights.")] = "yosinski_small",
    plain: Annotated[bool, option(STUDY, "Without augmentation, weight decay and dropout.")] = False,
    common: Options = PLAIN,
) -> None:
    """Whether the labels carry a signal: how fast true and random labels and pixels are learnt by heart."""
    from surgery.recipes.study_memorise import memorise as run

    run(common.config(data), network, not plain, common.as_json)


@study_app.command
def shuffle(
    data: Data,
    *,
    backbone: Annotated[str, option(STUDY, "A timm model.")] = "tf_efficientnet_lite0",
    weights: Annotated[str, option(STUDY, "Of the pretrained start: imagenet, hub, FILE, …")] = "imagenet",
    blocks: Annotated[str | None, option(STUDY, "Sides of the blocks, pixels, such as 224,56,14.")] = None,
    permute: Annotated[
        Literal["one", "each"], option(STUDY, "One permutation for all images, or each its own.")
    ] = "one",
    common: Options = PLAIN,
) -> None:
    """What a pretrained start still gives on images whose blocks are shuffled."""
    from surgery.recipes.study_shuffle import shuffle as run

    run(common.config(data), backbone, weights, numbers(blocks), permute, common.as_json)


@study_app.command
def checkpoints(
    run: Annotated[Path, Parameter(help="Folder of a run with --keep-checkpoints all.")],
    data: Data,
    *,
    most: Annotated[int | None, option(STUDY, "Checkpoints at most, evenly spread.")] = None,
    frozen: Annotated[bool, option(STUDY, "Train the head alone.")] = False,
    common: Options = PLAIN,
) -> None:
    """Whether longer pretraining transfers better: fine-tune from the checkpoints of RUN."""
    from surgery.recipes.study_checkpoints import checkpoints as study

    study(common.config(data), run, most, frozen, common.as_json)


@study_app.command
def cut(
    data: Data,
    *,
    backbone: Annotated[str, option(STUDY, "A timm model.")] = "vgg16",
    weights: Annotated[str, option(STUDY, "imagenet, hub, FILE or NAME[@VERSION].")] = "imagenet",
    treat: Annotated[
        str | None,
        option(STUDY, "Above the cut: head, kept, fresh, fresh+ (that tunes below it too), or some."),
    ] = None,
    lowest: Annotated[bool, option(STUDY, "Train from the lowest stages on too; takes long.")] = False,
    common: Options = PLAIN,
) -> None:
    """Where to cut a pretrained backbone for DATA: what to freeze, what to keep, what is new."""
    from surgery.recipes.study_cut import cut as run

    treatments = tuple(part for part in (treat or "").split(",") if part)
    run(common.config(data), backbone, weights, treatments, lowest, common.as_json)


@study_app.command(name="compare")
def study_compare(
    model: Annotated[str | None, Parameter(help="NAME[@VERSION]; with :start what it began with.")] = None,
    other: Annotated[str | None, Parameter(help="The model that it is compared with.")] = None,
    data: Annotated[str | None, Parameter(help="Data to judge on; else what MODEL was trained on.")] = None,
    *,
    pretrained: Annotated[
        Names,
        Parameter(group=STUDY, help="Versions trained from pretrained weights; no two models then."),
    ] = None,
    random: Annotated[Names, Parameter(group=STUDY, help="Versions trained from random starts.")] = None,
    split: Annotated[str, option(STUDY, "train, val or test.")] = "val",
    images: Annotated[int, option(STUDY, "Images judged at most.")] = 500,
    points: Annotated[int, Parameter(help="Places measured on the line between two models.")] = 11,
    bn: Annotated[
        Literal["keep", "reestimate"], Parameter(help="Batch norm on the line: as it is, or measured anew.")
    ] = "keep",
    basin: Annotated[int, Parameter(help="Points drawn for each condition of a basin; 0: none.")] = 10,
    seed: Annotated[int, Parameter(help="Seed of everything that is drawn.")] = 0,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Compare two models: features, weights, mistakes, and the loss between them. Or runs, by their starts.

    Finished parts are kept; a stopped study goes on when the command is repeated.
    """
    from surgery.recipes.study_compare import CompareConfig, compare

    config = CompareConfig(
        tuple(word for word in (model, other) if word), tuple(pretrained or ()), tuple(random or ()), data,
        split, images, points, bn, basin, seed, device,
    )  # fmt: skip
    compare(config, as_json)


@study_app.command(name="criticality")
def study_criticality(
    model: Annotated[str, Parameter(help="NAME, NAME@VERSION or NAME@ALIAS.")],
    data: Annotated[str | None, Parameter(help="Data to judge on; else what MODEL was trained on.")] = None,
    *,
    split: Annotated[str, option(STUDY, "Side whose loss is bounded.")] = "train",
    images: Annotated[int, option(STUDY, "Images judged at most.")] = 256,
    epsilon: Annotated[float, Parameter(help="How much of the way to guessing the loss may rise.")] = 0.1,
    seeds: Annotated[int, Parameter(help="How often each module is measured, with other noise.")] = 1,
    draws: Annotated[int, Parameter(help="Noises whose losses are averaged each time.")] = 3,
    checkpoints: Annotated[
        bool, Parameter(negative=(), help="The checkpoints of the model's run too (--keep-checkpoints all).")
    ] = False,
    seed: Annotated[int, Parameter(help="Seed of everything that is drawn.")] = 0,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Measure how critical each module of MODEL is: how far it may go back to its start, with what noise.

    Finished parts are kept; a stopped study goes on when the command is repeated.
    """
    from surgery.recipes.study_criticality import CriticalityConfig, criticality

    config = CriticalityConfig(model, data, split, images, epsilon, seeds, draws, checkpoints, seed, device)
    criticality(config, as_json)
