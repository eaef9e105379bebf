"""The commands. Nothing heavy is imported here: each command imports what it needs when it runs."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter

import surgery
from surgery.artifact.disk import no_room, path_refused
from surgery.artifact.errors import DiskFullError, SurgeryError, UserError
from surgery.cli_models import models_app
from surgery.cli_options import DATA, MACHINE, MODEL, TRAINING, Device, Json, Names, option
from surgery.cli_study import study_app
from surgery.cli_weights import backbones_app, weights_app

app = App(
    name="surgery",
    version=surgery.__version__,
    help="Cut a pretrained vision backbone open, graft a head on it, fine-tune it, prove it, serve it.",
)
data_app = App(name="data", help="Look at data before training; draw sample sets.")
for each in (models_app, backbones_app, weights_app, data_app, study_app):
    app.command(each)

FORMAT_HELP = "folders, csv, pairs, carvana, coco, voc or yolo; found out otherwise."


@app.command
def finetune(
    data: Annotated[str | None, Parameter(help="Folder of the data set, or a CSV file.")] = None,
    *,
    name: Annotated[str | None, Parameter(help="Name of the model in the store.")] = None,
    recipe: Annotated[Path | None, Parameter(help="Repeat a run; other options win over it.")] = None,
    resume: Annotated[bool, Parameter(negative=(), help="Go on with the unfinished run of NAME.")] = False,
    promote: Annotated[bool, Parameter(negative=(), help="Make the new version production.")] = False,
    processes: Annotated[int, Parameter(group=MACHINE, help="Processes, one for each GPU.")] = 1,
    preview: Annotated[bool, Parameter(negative=(), help="Write a page of views; train nothing.")] = False,
    as_json: Json = False,
    task: Annotated[str | None, option(DATA, "classify or segment; read from the data otherwise.")] = None,
    format: Annotated[str | None, option(DATA, FORMAT_HELP)] = None,
    classes: Annotated[Names, Parameter(help="Classes to learn; of a mask the others are the rest.")] = None,
    ignore: Annotated[Names, Parameter(help="Classes left out of loss and metrics.")] = None,
    skip_bad: Annotated[bool | None, option(DATA, "Train without unreadable images.")] = None,
    val_share: Annotated[float | None, option(DATA, "Share drawn for val where no split is given.")] = None,
    image_size: Annotated[str | None, option(DATA, "N or WxH; masks default to the images' size.")] = None,
    augment: Annotated[
        str | None, option(DATA, "auto, none, flip, light, medium, heavy, domain or FILE.yaml.")
    ] = None,
    views: Annotated[int | None, option(DATA, "Views kept per image; 0: new every epoch.")] = None,
    backbone: Annotated[str | None, option(MODEL, "A timm model (default: vgg16).")] = None,
    weights: Annotated[str | None, option(MODEL, "imagenet, hub, random, FILE or NAME[@VERSION].")] = None,
    head: Annotated[str | None, option(MODEL, "avg, max, avgmax, gem; deconv, fpn, unet, …")] = None,
    stages: Annotated[Names, Parameter(group=MODEL, help="Stages that the head reads.")] = None,
    dropout: Annotated[float | None, option(MODEL, "Dropout in the head.")] = None,
    test_flips: Annotated[bool | None, option(MODEL, "Answer from an image and its mirror image.")] = None,
    strategy: Annotated[
        str | None, option(MODEL, "random, full, frozen, partial, gradual, classical.")
    ] = None,
    classifiers: Annotated[Names, Parameter(group=MODEL, help="What classical chooses from.")] = None,
    folds: Annotated[int | None, option(MODEL, "Folds of classical's cross-validation.")] = None,
    freeze_through: Annotated[str | None, option(MODEL, "Last frozen stage of partial.")] = None,
    train_bn: Annotated[bool | None, option(MODEL, "Unfrozen batch norm updates its statistics.")] = None,
    epochs: Annotated[int | None, option(TRAINING, "Passes over the training images.")] = None,
    batch_size: Annotated[str | None, option(TRAINING, "Images per step; auto: what a GPU holds.")] = None,
    lr: Annotated[str | None, option(TRAINING, "Peak rate of the new layers; auto: range test.")] = None,
    backbone_lr_share: Annotated[float | None, option(TRAINING, "Rate of kept layers / lr.")] = None,
    weight_decay: Annotated[float | None, option(TRAINING, "AdamW's weight decay.")] = None,
    warmup_share: Annotated[float | None, option(TRAINING, "Share of steps with a rising rate.")] = None,
    resize_from: Annotated[
        float | None, option(TRAINING, "Progressive resizing: begin at this share of the size.")
    ] = None,
    label_smoothing: Annotated[float | None, option(TRAINING, "Share of the target spread out.")] = None,
    clip_norm: Annotated[float | None, option(TRAINING, "Largest norm of the gradient.")] = None,
    loss: Annotated[str | None, option(TRAINING, "ce, focal; of masks also dice, lovasz, and sums.")] = None,
    class_weights: Annotated[str | None, option(TRAINING, "none or balanced.")] = None,
    sampler: Annotated[str | None, option(TRAINING, "uniform or balanced.")] = None,
    mixup: Annotated[float | None, option(TRAINING, "Mixup's alpha; 0: none.")] = None,
    cutmix: Annotated[float | None, option(TRAINING, "CutMix's alpha; 0: none.")] = None,
    optimizer: Annotated[str | None, option(TRAINING, "adamw, nadamw, sgd or lion.")] = None,
    layer_decay: Annotated[float | None, option(TRAINING, "Rate of a stage / the next one's.")] = None,
    accumulate: Annotated[int | None, option(TRAINING, "Batches that make one step.")] = None,
    ema: Annotated[float | None, option(TRAINING, "Decay of the average of the weights; 0: none.")] = None,
    patience: Annotated[int | None, option(TRAINING, "Epochs without gain before a phase ends.")] = None,
    seed: Annotated[int | None, option(TRAINING, "Seed of everything random.")] = None,
    device: Annotated[Device | None, option(MACHINE, "Where to train.")] = None,
    precision: Annotated[str | None, option(MACHINE, "auto, fp32 or bf16.")] = None,
    recompute: Annotated[bool | None, option(MACHINE, "Less memory, more time.")] = None,
    cache_gib: Annotated[float | None, option(MACHINE, "Bound of the activation cache; 0: off.")] = None,
    workers: Annotated[int | None, option(MACHINE, "Threads that read images.")] = None,
    trackers: Annotated[
        list[str] | None,
        Parameter(name="--tracker", group=MACHINE, negative=(), help="tensorboard, mlflow, wandb."),
    ] = None,
    keep_checkpoints: Annotated[str | None, option(MACHINE, "A number, or all.")] = None,
    checkpoint_minutes: Annotated[float | None, option(MACHINE, "Longest time without one.")] = None,
) -> None:
    """Fine-tune a pretrained backbone on DATA, prove the export and store it as the next version of NAME."""
    given = {key: value for key, value in locals().items() if value is not None}
    for key in ("recipe", "resume", "promote", "preview", "as_json", "processes"):
        given.pop(key, None)
    from surgery.config import from_dict, load_recipe, merge, parse_batch, parse_rate, parse_size

    for key in ("classes", "ignore", "stages", "classifiers", "trackers"):
        if key in given:
            given[key] = [part for text in given[key] for part in text.split(",") if part]
    if "lr" in given:
        given |= parse_rate(given.pop("lr"))
    if "batch_size" in given:
        given |= parse_batch(given.pop("batch_size"))
    if "image_size" in given:
        given["image_size"] = list(parse_size(given["image_size"]))
    values = merge(load_recipe(recipe) if recipe else {}, given)
    config = from_dict(values, str(recipe) if recipe else "surgery finetune")
    if preview:
        from surgery.recipes.preview import preview as show

        return show(config, as_json)
    from surgery.recipes.finetune import finetune as run

    run(config, resume, promote, as_json, processes)


@app.command
def adapt(
    model: Annotated[str | None, Parameter(help="NAME, NAME@VERSION or NAME@ALIAS.")] = None,
    *,
    source: Annotated[str | None, option(DATA, "Labelled data; else what MODEL was trained on.")] = None,
    target: Annotated[
        list[str] | None,
        Parameter(group=DATA, consume_multiple=True, negative=(), help="Folders of images without labels."),
    ] = None,
    target_spool: Annotated[
        bool | None, option(DATA, "The images that the service kept as novel, too or instead.")
    ] = None,
    labels: Annotated[
        str | None, option(DATA, "Labelled data of the target: scored for the report, never used to choose.")
    ] = None,
    name: Annotated[str | None, Parameter(help="Name of the variant; by default MODEL's own.")] = None,
    method: Annotated[
        list[str] | None,
        Parameter(
            name="--method",
            consume_multiple=True,
            negative=(),
            help="dann, dann-alternating, cdan, coral, mmd, adabn, entropy, output, self-training; or some.",
        ),
    ] = None,
    choose_by: Annotated[
        str | None, Parameter(help="information, entropy, density, embedded or source: none needs labels.")
    ] = None,
    recipe: Annotated[Path | None, Parameter(help="Repeat a run; other options win over it.")] = None,
    resume: Annotated[bool, Parameter(negative=(), help="Go on with an unfinished run.")] = False,
    promote: Annotated[bool, Parameter(negative=(), help="Make the new version production.")] = False,
    as_json: Json = False,
    skip_bad: Annotated[bool | None, option(DATA, "Go without unreadable images.")] = None,
    augment: Annotated[str | None, option(DATA, "As for finetune; auto is the method's own.")] = None,
    views: Annotated[int | None, option(DATA, "Views kept per image; 0: new every epoch.")] = None,
    freeze_through: Annotated[str | None, option(MODEL, "Last frozen stage, or none.")] = None,
    at: Annotated[str | None, option(MODEL, "Stage whose features the domains are compared by.")] = None,
    strength: Annotated[float | None, option(TRAINING, "How much the target counts in the end.")] = None,
    confidence: Annotated[float | None, option(TRAINING, "How sure a pseudo-label is.")] = None,
    epochs: Annotated[int | None, option(TRAINING, "Passes over the source.")] = None,
    batch_size: Annotated[int | None, option(TRAINING, "Images of each domain per step.")] = None,
    lr: Annotated[float | None, option(TRAINING, "Peak rate of head and domain classifier.")] = None,
    backbone_lr_share: Annotated[float | None, option(TRAINING, "Rate of stages / lr.")] = None,
    ema: Annotated[float | None, option(TRAINING, "Decay of the average that is the teacher.")] = None,
    seed: Annotated[int | None, option(TRAINING, "Seed of everything random.")] = None,
    device: Annotated[Device | None, option(MACHINE, "Where to train.")] = None,
    precision: Annotated[str | None, option(MACHINE, "auto, fp32 or bf16.")] = None,
    cache_gib: Annotated[float | None, option(MACHINE, "Bound of the activation cache; 0: off.")] = None,
    workers: Annotated[int | None, option(MACHINE, "Threads that read images.")] = None,
    trackers: Annotated[
        list[str] | None,
        Parameter(name="--tracker", group=MACHINE, negative=(), help="tensorboard, mlflow, wandb."),
    ] = None,
    keep_checkpoints: Annotated[str | None, option(MACHINE, "A number, or all.")] = None,
    checkpoint_minutes: Annotated[float | None, option(MACHINE, "Longest time without one.")] = None,
) -> None:
    """Adapt MODEL to images that nobody has labelled, prove the variant and store it."""
    given = {key: value for key, value in locals().items() if value is not None}
    for key in ("recipe", "resume", "promote", "as_json"):
        given.pop(key, None)
    from surgery.config import AdaptConfig, build_config, load_recipe, merge

    for key, field in (("method", "methods"), ("at", "tap")):
        if key in given:
            given[field] = given.pop(key)
    for key in ("methods", "trackers"):
        if key in given:
            given[key] = [part for text in given[key] for part in text.split(",") if part]
    values = merge(load_recipe(recipe) if recipe else {}, given)
    if "model" in values:
        values.setdefault("name", values["model"].split("@")[0])
    if values.get("target_spool"):
        values.setdefault("target", [])
    hint = "Adaptation needs MODEL and --target IMAGES (or --target-spool), or a recipe of a run."
    config = build_config(AdaptConfig, values, str(recipe) if recipe else "surgery adapt", hint)
    from surgery.recipes.adapt import adapt as run

    run(config, resume, promote, as_json)


@app.command
def evaluate(
    model: Annotated[str, Parameter(help="NAME, NAME@VERSION or NAME@ALIAS.")],
    data: Annotated[str, Parameter(help="Folder of the data set, or a CSV file.")],
    *,
    split: str = "val",
    skip_bad: Annotated[bool, Parameter(negative=(), help="Leave unreadable images out.")] = False,
    gap: Annotated[
        bool, Parameter(help="State the generalisation gap; scores some training images (512, masks 64).")
    ] = True,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Score a stored model on DATA, from image bytes to answer."""
    from surgery.recipes.evaluate import evaluate as run

    run(model, data, split, device, as_json, skip_bad, gap)


@app.command
def predict(
    model: Annotated[str, Parameter(help="NAME, NAME@VERSION or NAME@ALIAS.")],
    images: Annotated[list[str], Parameter(help="Image files or folders.")],
    *,
    out: Annotated[Path | None, Parameter(help="Folder for masks and overlays, or the table.")] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Answer images with a stored model, as the service would."""
    from surgery.recipes.predict import predict as run

    run(model, images, out, device, as_json)


@app.command
def drift(
    model: Annotated[str, Parameter(help="NAME, NAME@VERSION or NAME@ALIAS.")],
    images: Annotated[list[str], Parameter(help="Image files or folders, as they come.")],
    *,
    false_alarm_rate: Annotated[
        float, Parameter(help="Probability of finding drift where there is none.")
    ] = 0.05,
    skip_bad: Annotated[bool, Parameter(negative=(), help="Leave unreadable images out.")] = False,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Test whether IMAGES are drawn like those that MODEL was trained on, and say whether to adapt it."""
    from surgery.recipes.drift import drift as run

    run(model, images, false_alarm_rate, skip_bad, device, as_json)


@app.command
def passport(
    model: Annotated[str, Parameter(help="NAME, NAME@VERSION or NAME@ALIAS.")],
    *,
    data: Annotated[str | None, Parameter(help="Data to measure on; else what MODEL was trained on.")] = None,
    images: Annotated[int, option(DATA, "Images of each side measured at most.")] = 256,
    seed: Annotated[int, Parameter(help="Seed of everything that is drawn.")] = 0,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Write what MODEL is made of and how far it moved from its start: one page and one JSON beside it.

    Finished parts are kept; repeat the command to go on after a stop.
    """
    from surgery.recipes.passport import PassportConfig
    from surgery.recipes.passport import passport as run

    run(PassportConfig(model, data, images, seed, device), as_json)


@app.command
def export(
    model: Annotated[str, Parameter(help="NAME, NAME@VERSION or NAME@ALIAS.")],
    *,
    precision: Annotated[str, Parameter(help="fp32, int8 (for CPUs) or fp16 (for GPUs).")] = "fp32",
    data: Annotated[
        str | None, Parameter(help="Data for scores, and to calibrate int8; default: the recipe's.")
    ] = None,
    tolerance: Annotated[
        float, Parameter(help="Percentage points of the main score on val that int8 or fp16 may lose.")
    ] = 0.5,
    as_json: Json = False,
) -> None:
    """Export a stored model again, or in another precision, judge it and store it as the next version."""
    from surgery.recipes.export import export as run

    run(model, precision, data, tolerance, as_json)


@data_app.command(name="check")
def data_check(
    data: str,
    *,
    format: Annotated[str | None, option(DATA, FORMAT_HELP)] = None,
    classes: Names = None,
    ignore: Names = None,
    html: Annotated[bool, Parameter(negative=(), help="Write a page with samples of every class.")] = False,
    out: Annotated[Path | None, Parameter(help="The page's file; implies --html.")] = None,
    as_json: Json = False,
) -> None:
    """Report everything that is wrong with DATA, at once: files, masks, copies, rare and unequal classes.

    --html writes runs/data-check-DATA.html, also where there are problems. With problems the exit code is 2.
    """
    from surgery.recipes.data import check

    check(data, tuple(classes or ()), tuple(ignore or ()), as_json, format, html or out is not None, out)


@data_app.command(name="sample")
def data_sample(
    kind: Literal["cars", "digits"],
    out: Path,
    *,
    n_train: int | None = None,
    n_val: int | None = None,
    domain: Literal["day", "night"] = "day",
    size: str | None = None,
    seed: int = 0,
) -> None:
    """Draw street scenes with cars and exact masks, or write scikit-learn's handwritten digits."""
    from surgery.config import parse_size
    from surgery.recipes.data import sample

    pixels = parse_size(size) if size else None
    given: dict[str, Any] = {"n_train": n_train, "n_val": n_val, "size": pixels}
    sample(kind, out, domain=domain, seed=seed, **{k: v for k, v in given.items() if v is not None})


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code: 0 done, 2 the user can fix it, 1 anything else."""
    tokens = sys.argv[1:] if arguments is None else arguments
    try:
        app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    except SurgeryError as error:
        return _complain(error, "--json" in tokens)
    except CycloptsError as error:
        mistake = UserError(str(error), "See `surgery --help`, or `surgery COMMAND --help`.")
        return _complain(mistake, "--json" in tokens)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of our output, such as `head`, has had enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        return 1
    except Exception as error:  # whoever wrote: a tracker, a recipe, a page
        refused = path_refused(error)
        if refused:
            return _complain(refused, "--json" in tokens)
        if not no_room(error):
            raise
        where = getattr(error, "filename", None)
        full = DiskFullError(
            f"{where}: the disk is full" if where else f"the disk is full: {error}",
            "Free some room and repeat the command; `finetune --resume` goes on from the last checkpoint.",
        )
        return _complain(full, "--json" in tokens)
    return 0


def _complain(error: SurgeryError, as_json: bool) -> int:
    from surgery.recipes.processes import tells_first

    print(f"error: {error}", file=sys.stderr)
    if as_json and tells_first():
        body: dict[str, Any] = {"code": error.code, "message": error.message, "hint": error.hint}
        print(json.dumps({"error": body}))
    return error.exit_code


def entry() -> None:
    """Entry point of the `surgery` command."""
    sys.exit(main())
