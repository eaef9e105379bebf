"""The digits sample: scikit-learn's handwritten digits as class folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from surgery.data.samples.writing import new_folder, write_image


def write_digits(out: Path, progress: Callable[[int, int], None] | None = None) -> Path:
    """Write scikit-learn's 1,797 handwritten digits as one folder of 8×8 PNG files per class.

    No split is written: reading the folder draws a stratified one.

    Args:
        out: The folder to make. One that holds this sample already is made anew.
        progress: Called with (images done, images in all).

    Returns:
        `out`.

    Raises:
        DataError: If `out` holds something else, or cannot be written.

    References:
        Alpaydin & Kaynak 1998, Optical Recognition of Handwritten Digits, UCI (CC BY 4.0).
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    total = len(digits.images)
    with new_folder(Path(out), {"kind": "digits"}) as folder:
        for label in range(10):
            (folder / str(label)).mkdir(parents=True)
        for index, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
            # Ink runs from 0 to 16; 255 is the brightest grey.
            grey = np.rint(image * (255 / 16)).astype(np.uint8)
            write_image(folder / str(label) / f"{index:05d}.png", grey)
            if progress is not None:
                progress(index + 1, total)
    return Path(out)
