"""`surgery predict`: a stored model's answers for image files, as the service would give them."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surgery.artifact.errors import ConfigError, DataError, ImageError
from surgery.artifact.store import Store

if TYPE_CHECKING:
    from surgery.artifact.manifest import Manifest
    from surgery.artifact.novelty import Gauge
    from surgery.artifact.session import Session


def predict(ref: str, images: list[str], out: Path | None, device: str, as_json: bool) -> None:
    """Answer images. One that cannot be decoded does not keep the others from their answers.

    Args:
        ref: NAME, NAME@VERSION or NAME@ALIAS.
        images: Files, or folders whose images are taken recursively.
        out: Folder for `<stem>.png` (index mask in the image's own size) and `<stem>-overlay.png`, or
            for `predictions.csv`; created if missing.
        device: `auto`, `cpu` or `cuda`.
        as_json: Print one JSON object on stdout; an image without an answer has an `error` there.

    Raises:
        ConfigError: If masks have no place to go.
        DataError: If a path does not exist, or two images would write the same file.
        SystemExit: With 2, after all answers, if images could not be decoded.
    """
    stored = Store().resolve(ref)
    from surgery.artifact.session import open_gauge, open_version
    from surgery.train.reporting import Reporter

    manifest = stored.manifest
    if manifest.task == "segment" and out is None:
        raise ConfigError("predict makes masks and needs a place for them", "Give --out DIR.")
    paths = find_images(images)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        if manifest.task == "segment":
            _refuse_overwriting(paths, out)
    session = open_version(stored, device)
    gauge = open_gauge(stored, session)
    report = Reporter()
    results: list[dict[str, Any]] = []
    with report.task(f"answering with {stored.ref}") as task:
        for path in paths:
            results.append(_answer(path, session, manifest, gauge, out))
            task.update(len(results), len(paths))
    failed = [result for result in results if "error" in result]
    if out is not None and manifest.task == "classify":
        _write_csv(out / "predictions.csv", [result for result in results if "labels" in result])
    if as_json:
        facts = {"model": stored.name, "version": stored.version}
        facts |= {"precision": manifest.precision_on(session.device), "results": results}
        json.dump(facts, sys.stdout)
        print()
    else:
        for result in results:
            print(_describe(result))
    for result in failed:
        report.line(f"error: {result['error']['message']}")
    if failed:
        report.line(f"{len(failed)} of {len(paths)} images have no answer")
        sys.exit(2)
    report.line(f"next: bentoml serve, then curl -F image=@{paths[0]} http://127.0.0.1:3000/predict")


def _answer(
    path: Path, session: Session, manifest: Manifest, gauge: Gauge | None, out: Path | None
) -> dict[str, Any]:
    """Return one row of the results, and write its files."""
    from surgery.artifact.answer import draw_overlay, encode_mask_png, mask_pixels
    from surgery.artifact.image import read_image
    from surgery.artifact.session import answer_image

    result: dict[str, Any] = {"image": str(path)}
    try:
        image = read_image(path)
    except ImageError as error:
        return result | {"error": {"code": error.code, "message": error.message, "hint": error.hint}}
    answer = answer_image(session, manifest, image, gauge=gauge)
    result["novelty"] = answer.novelty
    if answer.mask is None:
        return result | {"labels": answer.labels}
    if out is not None:
        result["mask"] = str(out / f"{path.stem}.png")
        (out / f"{path.stem}.png").write_bytes(encode_mask_png(answer.mask))
        overlay = draw_overlay(image, answer.mask, manifest.output)
        _write_png(out / f"{path.stem}-overlay.png", overlay)
    return result | {"pixels": mask_pixels(answer.mask, manifest.output)}


def find_images(given: list[str]) -> list[Path]:
    """Return the image files among files and folders, in order.

    Raises:
        DataError: If a path does not exist or a folder holds no image.
    """
    from surgery.data.folders import describe_folder, list_images

    found: list[Path] = []
    for text in given:
        path = Path(text)
        if path.is_dir():
            inside = list(list_images(path))
            if not inside:
                raise DataError(f"{path}: holds no image", f"It holds {describe_folder(path)}.")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise DataError(f"{path}: there is no such file or folder", "Check the path.")
    return found


def _refuse_overwriting(paths: list[Path], out: Path) -> None:
    inputs = {path.resolve() for path in paths}
    written: dict[Path, Path] = {}
    for path in paths:
        for target in (out / f"{path.stem}.png", out / f"{path.stem}-overlay.png"):
            if target.resolve() in inputs:
                raise DataError(f"{target} is one of the images", "Give another folder with --out.")
            other = written.setdefault(target, path)
            if other != path:
                raise DataError(
                    f"{other} and {path} would both write {target}", "Predict them into two folders."
                )


def _describe(result: dict[str, Any]) -> str:
    if "error" in result:
        return f"{result['image']}: no answer"
    if "labels" in result:
        found = ", ".join(
            f"{row['label']} {row['probability']:.4f}" for row in chosen_labels(result["labels"])
        )
        return f"{result['image']}: {found or 'none of the labels'}{_describe_novelty(result)}"
    shares = ", ".join(f"{name} {share:.2%}" for name, share in result["pixels"].items())
    return f"{result['image']}: {shares}{_describe_novelty(result)} -> {result['mask']}"


def _describe_novelty(result: dict[str, Any]) -> str:
    return "" if result["novelty"] is None else f" (novelty {result['novelty']:.4f})"


def chosen_labels(labels: list[Any]) -> list[Any]:
    """Return the most probable label, or where an image may have several all that are present."""
    return [row for row in labels if row["present"]] if "present" in labels[0] else labels[:1]


def _write_csv(path: Path, results: list[dict[str, Any]]) -> None:
    classes = sorted(row["label"] for row in results[0]["labels"]) if results else []
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "label", "novelty", *classes])
        for result in results:
            by_class = {row["label"]: row["probability"] for row in result["labels"]}
            label = ";".join(row["label"] for row in chosen_labels(result["labels"]))
            novelty = "" if result["novelty"] is None else f"{result['novelty']:.6f}"
            shares = (f"{by_class[name]:.6f}" for name in classes)
            writer.writerow([result["image"], label, novelty, *shares])


def _write_png(path: Path, image: Any) -> None:
    from PIL import Image

    Image.fromarray(image).save(path)
