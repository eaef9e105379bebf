"""`surgery drift`: whether images are still like those that a stored model was trained on."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surgery.artifact.errors import ConfigError, DataError, ImageError, StoreError
from surgery.artifact.store import Store

if TYPE_CHECKING:
    from surgery.artifact.store import StoredVersion
    from surgery.deliver.drift import Drift
    from surgery.train.reporting import Reporter

LEAST = 10
"""Images without which no test says anything."""
MOST = 500
"""Images that are looked at; of more, so many are drawn."""
SHOWN = 20
"""Images that cannot be read which an error names."""
SEED = 0


def drift(
    ref: str, images: list[str], false_alarm_rate: float, skip_bad: bool, device: str, as_json: bool
) -> None:
    """Compare images with those that were held out of a model's training, and say whether to adapt it.

    Args:
        ref: NAME, NAME@VERSION or NAME@ALIAS.
        images: Files, or folders whose images are taken recursively.
        false_alarm_rate: Probability of finding drift where there is none.
        skip_bad: Leave unreadable images out.
        device: `auto`, `cpu` or `cuda`.
        as_json: Print one JSON object on stdout.

    Raises:
        ConfigError: If the rate is out of range.
        DataError: If there are too few images, some cannot be read, or they are those of a spool.
        StoreError: If the version has no statistics of its training.
    """
    from surgery.deliver.drift import check_rate, find_drift

    check_rate(false_alarm_rate)
    stored = Store().resolve(ref)
    from surgery.artifact.session import open_gauge, open_version
    from surgery.train.interrupt import deferred_interrupts
    from surgery.train.reporting import Reporter

    report = Reporter()
    session = open_version(stored, device)
    gauge = open_gauge(stored, session)
    precision = stored.manifest.precision_on(session.device)
    if gauge is None:
        raise StoreError(
            f"{stored.ref} has no statistics of its training images for {precision}: it was made before there"
            " were any, or the images were not at hand",
            f"`surgery export {stored.name}@{stored.version}` makes a version with them.",
        )
    paths = choose_images(images, report)
    with deferred_interrupts():
        embeddings = _embed(stored, session, paths, skip_bad, report)
    found = find_drift(gauge, embeddings, false_alarm_rate, SEED)
    after = _next(stored, images, found)
    if as_json:
        facts = {"model": stored.name, "version": stored.version, "precision": precision}
        json.dump(facts | _tell(found) | {"next": after}, sys.stdout)
        print()
    else:
        print("\n".join(_describe(stored, found)))
    report.line(f"next: {after}")


def choose_images(given: list[str], report: Reporter) -> list[Path]:
    """Return the images that are looked at, each once: all, or a sample where there are many.

    Raises:
        DataError: If there are too few, or they are those of a spool.
    """
    import numpy as np

    from surgery.artifact.spool import is_spooled, spool_root
    from surgery.data.hashing import hash_file
    from surgery.data.unlabelled import find_unlabelled

    found = find_unlabelled([Path(text) for text in given])
    for note in found.notes:
        report.line(note)
    root = spool_root(Store().root).resolve()
    inside = next((path for path in found.images if is_spooled(path, root)), None)
    if inside is not None:
        raise DataError(
            f"{inside} is of a spool, which holds images that were chosen for being novel: a test of them"
            " finds drift whether there is any or not",
            "Give a folder of images as they come, or adapt with `--target-spool`.",
        )
    distinct: dict[str, Path] = {}
    copies = 0
    for i in np.random.default_rng(SEED).permutation(len(found.images)):  # no more are read than are drawn
        if len(distinct) == MOST:
            break
        known, path = len(distinct), found.images[i]
        try:
            distinct.setdefault(hash_file(path), path)
        except OSError:
            distinct[str(path)] = path  # what is wrong with it is said where it is read
        copies += len(distinct) == known
    if copies:
        report.line(f"{copies} of the images are copies of others and not counted")  # no further evidence
    _check_enough(len(distinct))
    if len(distinct) + copies < len(found.images):
        report.line(f"{len(distinct)} of the {len(found.images)} images are drawn")
    return sorted(distinct.values())


def _check_enough(count: int) -> None:
    if count < LEAST:
        raise DataError(
            f"{count} image{'' if count == 1 else 's'} to compare; the tests need {LEAST} at least",
            "Give more images: with some fifty a change shows well.",
        )


def _embed(stored: StoredVersion, session: Any, paths: list[Path], skip_bad: bool, report: Reporter) -> Any:
    """Return what the network makes of the images, (n, d).

    Raises:
        DataError: If images cannot be read and are not to be left out, or too few are left.
    """
    from surgery.artifact.image import read_image
    from surgery.deliver.statistics import embed

    bad: list[str] = []

    def read(path: Path) -> Any:
        try:
            return read_image(path)
        except ImageError as error:
            bad.append(error.message)
            return None

    embeddings = embed(session, stored.manifest, paths, report, f"asking {stored.ref}", read)
    if bad and not skip_bad:
        more = [f"and {len(bad) - SHOWN} more"] if len(bad) > SHOWN else []
        lines = [f"{len(bad)} of {len(paths)} images cannot be read", *sorted(bad)[:SHOWN], *more]
        raise DataError("\n".join(lines), "Fix or remove these, or give --skip-bad.")
    if bad:
        report.line(f"left out: {len(bad)} images that cannot be read")
    _check_enough(len(embeddings))
    return embeddings


def _next(stored: StoredVersion, images: list[str], found: Drift) -> str:
    from surgery.recipes.adapt import check_parent

    if not found.found:
        return f"bentoml serve; {stored.ref} is at home with these images"
    try:
        check_parent(stored)
    except ConfigError:  # no adaptation takes it
        return f"surgery finetune DATA --name {stored.name}, with labels for some of these images"
    return f"surgery adapt {stored.ref} --target {shlex.join(images)}"


def _tell(found: Drift) -> dict[str, Any]:
    from surgery.deliver.drift import FAR

    return {
        "drift": found.found,
        "false_alarm_rate": found.false_alarm_rate,
        "compared_with": found.like,
        "images": found.images,
        "tests": {"distance": {"p": found.distance_p}, "embedding": {"p": found.embedding_p}},
        "rejects_at": found.false_alarm_rate / 2,
        "beyond": {"share": found.beyond, "interval": list(found.interval), "expected": round(1 - FAR, 4)},
    }


def _describe(stored: StoredVersion, found: Drift) -> list[str]:
    from surgery.deliver.drift import FAR

    low, high = found.interval
    beyond = f"{found.beyond:.1%} ({low:.1%}–{high:.1%}); without drift about {1 - FAR:.0%}"
    return [
        f"{stored.ref} and {found.images} images, compared with its {found.like}",
        f"  farther from the training images   p = {found.distance_p:.4g}",
        f"  elsewhere among embeddings         p = {found.embedding_p:.4g}",
        f"  beyond {FAR:.0%} of images held out    {beyond}",
        f"drift: {'yes' if found.found else 'no'} at a false-alarm rate of {found.false_alarm_rate:.1%}"
        f" (a test rejects at p ≤ {found.false_alarm_rate / 2:g})",
    ]
