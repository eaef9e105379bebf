"""Statistics of a version's training embeddings, by which its service knows images that are unlike them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from sklearn.covariance import ledoit_wolf_shrinkage

from surgery.artifact.errors import DataError, ImageError
from surgery.artifact.image import Pixels, prepare_image, read_image
from surgery.artifact.manifest import Manifest
from surgery.artifact.novelty import (
    LEAST_USUAL,
    Gaussian,
    HeldOut,
    read_novelty,
    to_directions,
    write_novelty,
)
from surgery.artifact.session import Floats, Session
from surgery.data.hashing import hash_file
from surgery.data.loaders import iterate
from surgery.data.table import Table
from surgery.data.unlabelled import find_unlabelled
from surgery.deliver.parity import spread
from surgery.deliver.scoring import Scored
from surgery.train.interrupt import raise_if_requested
from surgery.train.reporting import Reporter

FITTED_IMAGES = 512
"""Training images, evenly spread, that the Gaussian is of; of two domains half of them each, and where one
has fewer the other makes up for it."""
CALIBRATED_IMAGES = 2000
"""Images held out whose distances are kept."""
REFERENCE_IMAGES = 256
"""Images held out whose embeddings are kept."""
LEAST_FITTED = 2
LEAST_VARIANCE = 1e-10
"""Of embeddings of length 1 along an axis: where the training images are all alike, another image is far out
but not infinitely so."""


def fit_gaussian(embeddings: Floats) -> Gaussian:
    """Return mean and covariance of embeddings' directions, shrunk towards a sphere as Ledoit and Wolf do.

    Args:
        embeddings: Shape (n, d), n at least 2; d may exceed n.

    References:
        Ledoit & Wolf 2004, A well-conditioned estimator for large-dimensional covariance matrices,
        section 3.2.
    """
    rows = to_directions(embeddings).astype(np.float64)
    mean = rows.mean(0)
    shrinkage = float(ledoit_wolf_shrinkage(rows))
    _, singular, axes = np.linalg.svd(rows - mean, full_matrices=False)
    along = np.square(singular) / len(rows)
    sphere = along.sum() / rows.shape[1]
    # A singular value that is nothing but rounding has an axis that is nothing but rounding.
    kept = singular > 1e-7 * max(singular[0], np.finfo(np.float64).tiny)
    variances = np.maximum((1 - shrinkage) * along[kept] + shrinkage * sphere, LEAST_VARIANCE)
    return Gaussian(
        mean.astype(np.float32),
        axes[kept].astype(np.float32),
        1 / variances,
        1 / max(shrinkage * sphere, LEAST_VARIANCE),
    )


def hold_out(gaussian: Gaussian, embeddings: Floats, targets: int = 0) -> HeldOut:
    """Return distances and embeddings of images that it was not fitted on, evenly spread if there are many.

    Args:
        gaussian: Of the training embeddings.
        embeddings: Shape (n, d), n at least 1.
        targets: How many of them, the last ones, are of the domain that the model was adapted to.
    """
    ours = len(embeddings) - targets
    marks = np.arange(len(embeddings)) >= ours
    counted, kept = (
        [*mine, *(ours + k for k in theirs)]
        for mine, theirs in (share(ours, targets, most) for most in (CALIBRATED_IMAGES, REFERENCE_IMAGES))
    )
    # One by one, as they are asked for: products of many are rounded otherwise, which would decide ties.
    distances = np.array([gaussian.distances(row[None])[0] for row in embeddings[counted]])
    order = np.argsort(distances, kind="stable")
    of_domains = (marks[counted][order], marks[kept]) if targets else (None, None)
    return HeldOut(distances[order], embeddings[kept], *of_domains)


def share(ours: int, theirs: int, most: int) -> tuple[list[int], list[int]]:
    """Return which of two domains' images are taken, evenly spread: up to half of `most` each.

    Where one has fewer the other makes up for it: a domain of a few images takes nothing from the other.
    """
    of_theirs = min(theirs, max(most // 2, most - ours))
    return spread(ours, most - of_theirs), spread(theirs, of_theirs)


def add_statistics(
    folder: Path,
    session: Session,
    manifest: Manifest,
    table: Table,
    val: Scored,
    report: Reporter,
    targets: Sequence[Path] | None = None,
) -> None:
    """Write the statistics of a version's float32 graph, unless the version can have none, which is said.

    They are of the embeddings that the graph answers from image bytes, as those of a question will be. A
    file that was copied from the version's parent is kept: graphs of the same weights answer the same.

    Args:
        folder: The version's folder.
        session: Its float32 graph.
        manifest: What it takes and answers.
        table: Its train is fitted on.
        val: What the graph made of val, which is held out.
        report: Where progress is shown.
        targets: Images without labels that the model was adapted to; None finds them by the manifest.
    """
    known = read_novelty(folder)
    if known is not None and "fp32" in known[1]:
        write_novelty(folder, known[0], {"fp32": known[1]["fp32"]})
        return
    found = _fit(session, manifest, table, val, report, targets)
    if found is not None:
        gaussian, held_out = found
        write_novelty(folder, gaussian, {"fp32": hold_out(gaussian, *held_out)})


def add_precision(
    folder: Path,
    sessions: tuple[Session, Session],
    manifest: Manifest,
    table: Table,
    found: tuple[Scored, Scored],
    precision: str,
    report: Reporter,
) -> None:
    """Write what a further graph makes of the images held out: its embeddings are not those of float32.

    Args:
        folder: The version's folder, with its parent's file if that has one.
        sessions: The float32 graph and the further one.
        manifest: What they take and answer.
        table: The data set.
        found: What both made of val.
        precision: Of the further graph.
        report: Where progress is shown.
    """
    if read_novelty(folder) is None:
        add_statistics(folder, sessions[0], manifest, table, found[0], report)
    known = read_novelty(folder)
    if known is None:
        return
    gaussian, held_out = known
    targets = _find_targets(manifest)
    if targets is None:
        report.line(f"{precision}: no novelty, since the images that it was adapted to are not there")
        held_out.pop(precision, None)
    else:
        theirs = _embed_held_out(sessions[1], manifest, found[1], report, targets)
        held_out[precision] = hold_out(gaussian, *theirs)
    write_novelty(folder, gaussian, held_out)


def _fit(
    session: Session,
    manifest: Manifest,
    table: Table,
    val: Scored,
    report: Reporter,
    targets: Sequence[Path] | None,
) -> tuple[Gaussian, tuple[Floats, int]] | None:
    """Return the Gaussian, and what `_embed_held_out` does."""
    targets = _find_targets(manifest) if targets is None else targets
    train = [item.image for item in table.of("train")]
    if targets is None or len(train) < LEAST_FITTED or not val.images:
        why = "the images that it was adapted to are not there" if targets is None else "too few images"
        report.line(f"no statistics of training embeddings: {why}")
        return None
    fitted = [path for path in targets if not is_held_out(path)]
    taken = share(len(train), len(fitted), FITTED_IMAGES)
    chosen = [rows[k] for rows, which in zip((train, fitted), taken, strict=True) for k in which]
    embeddings = embed(session, manifest, chosen, report, "statistics of the training embeddings")
    embeddings = embeddings[np.isfinite(embeddings).all(1)]  # one that is not would leave no mean
    if len(embeddings) < LEAST_FITTED:
        report.line("no statistics of training embeddings: too few images have one")
        return None
    return fit_gaussian(embeddings), _embed_held_out(session, manifest, val, report, targets)


def _embed_held_out(
    session: Session, manifest: Manifest, val: Scored, report: Reporter, targets: Sequence[Path]
) -> tuple[Floats, int]:
    """Return the embeddings of val and of target images that the fit left out, (n, d), and how many these
    are, which come last."""
    ours = np.stack([each.embedding for each in val.images])
    held = [path for path in targets if is_held_out(path)]
    _, chosen = share(len(ours), len(held), CALIBRATED_IMAGES)
    theirs = np.zeros((0, 0), np.float32)
    if chosen:
        images = [held[k] for k in chosen]
        theirs = embed(session, manifest, images, report, "embeddings of target images held out")
    if targets and len(theirs) < LEAST_USUAL:
        report.line(
            f"{len(theirs)} of the {len(targets)} target images could be held out; with fewer than "
            f"{LEAST_USUAL} the version does not know what is usual there, and images of it stay novel"
        )
    if not len(theirs):
        return ours, 0
    return np.concatenate([ours, theirs]), len(theirs)


def is_held_out(path: Path) -> bool:
    """Tell on which side of the statistics a target image stands: half of them are fitted on.

    The image's own digest decides, so a later export of the model comes to the same, whatever has been added
    to the folder or taken from it, and copies stand on one side.
    """
    return int(hash_file(path)[0], 16) % 2 == 1


def read_or_none(path: Path) -> Pixels | None:
    """Return the image in a file, (h, w, 3); None if there is none that can be read."""
    try:
        return read_image(path)
    except ImageError:
        return None


def embed(
    session: Session,
    manifest: Manifest,
    images: Sequence[Path],
    report: Reporter,
    name: str,
    read: Callable[[Path], Pixels | None] = read_or_none,
) -> Floats:
    """Return what a graph makes of image files, as it would of a question's.

    Args:
        session: The graph.
        manifest: What it takes.
        images: The files.
        report: Where progress is shown.
        name: What it is for, in words.
        read: Returns an image, or None to leave it out. By default the unreadable ones are left out without
            a word: data is checked before anything is trained on it.

    Returns:
        Shape (n, d), float32; (0, 0) if none can be read.
    """
    found = []
    with report.task(name) as task:
        order = [[k] for k in range(len(images))]
        for done, loaded in enumerate(iterate(images, order, read, workers=1), start=1):
            if loaded[0] is not None:
                prepared = prepare_image(loaded[0], manifest.input)
                found.append(session.run(prepared[None])[1][0])  # (h, w, 3) -> (1, h, w, 3) -> (d,)
            task.update(done, len(images))
            raise_if_requested()
    return np.stack(found) if found else np.zeros((0, 0), np.float32)


def _find_targets(manifest: Manifest) -> list[Path] | None:
    """Return the images that a model was adapted to, [] if it was not; None if they are not there."""
    adaptation = manifest.provenance.get("adaptation")
    if adaptation is None:
        return []
    try:
        return find_unlabelled([Path(each) for each in adaptation["target"]["path"]]).images
    except DataError:
        return None
