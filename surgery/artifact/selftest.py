"""A question with a known answer that every version carries, so that whoever loads it can ask it first."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from surgery.artifact.errors import StoreError
from surgery.artifact.image import Pixels
from surgery.artifact.session import Floats, Session

SELFTEST_FILE = "selftest.npz"
"""In a version's folder: `image`, (h, w, 3) uint8 as the network takes it, and its `logits`, float32."""
MAX_SIDE = 256
"""Masks are asked for a cutting of at most so many pixels a side: the file stays small."""
TOLERANCE = {"fp32": 1e-3, "fp16": 0.05, "int8": 0.5}
"""Largest difference of a logit, as a share of the largest one, by precision: other processors round
otherwise, and so does a network of other numbers; a damaged one is off by far more."""


def write_selftest(folder: Path, session: Session, image: Pixels, fixed: bool) -> None:
    """Ask a network an image and keep both.

    Args:
        folder: The version's folder.
        session: Its opened graph, fp32.
        image: The image as the network takes it, (h, w, 3).
        fixed: Whether the network takes that size only; else a cutting will do.
    """
    asked = image if fixed else np.ascontiguousarray(image[:MAX_SIDE, :MAX_SIDE])
    logits, _ = session.run(asked[None])
    np.savez_compressed(folder / SELFTEST_FILE, image=asked, logits=logits[0])


def read_selftest(folder: Path) -> tuple[Pixels, Floats] | None:
    """Return image and logits; None where the version has none, as those of early programs.

    Raises:
        StoreError: If the file is damaged.
    """
    path = folder / SELFTEST_FILE
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as held:
            image, logits = held["image"], held["logits"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise StoreError(f"{path}: damaged ({error})", "Restore the version from a copy.") from error
    if image.dtype != np.uint8 or image.ndim != 3 or logits.dtype != np.float32:
        raise StoreError(f"{path}: holds no image and logits", "Restore the version from a copy.")
    return image, logits


def check_selftest(asked: tuple[Pixels, Floats], session: Session, precision: str) -> None:
    """Ask a network again what was asked when it was made.

    Raises:
        StoreError: If it answers otherwise than then.
    """
    image, wanted = asked
    logits, _ = session.run(image[None])
    bound = TOLERANCE[precision] * max(1.0, float(np.abs(wanted).max()))
    same_shape = logits.shape == (1, *wanted.shape)
    difference = float(np.abs(logits[0] - wanted).max()) if same_shape else np.inf
    if not difference <= bound:
        raise StoreError(
            f"{session.path}: answers its own test image otherwise than when it was made"
            f" (a logit differs by {difference:.3g}, at most {bound:.3g} is allowed)",
            "Restore the version from a copy, or export it again.",
        )
