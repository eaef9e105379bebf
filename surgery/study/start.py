"""The pretrained weights of a study, named so that a training's key changes where they do."""

from __future__ import annotations

from dataclasses import dataclass

from surgery.artifact.errors import WeightsError
from surgery.nets.weight_file import digest
from surgery.nets.weights import LoadedWeights, load_weights


@dataclass(frozen=True)
class Start:
    """Weights as a training names them.

    Attributes:
        word: What `--weights` takes to get them; of a stored model its number, not an alias, which moves.
        sha256: Of the file they were read from, else of the tensors; empty of random ones.
    """

    word: str
    sha256: str


def name_start(backbone: str, weights: str) -> tuple[Start, LoadedWeights]:
    """Load weights, and return what names them beside them.

    Args:
        backbone: timm's name.
        weights: As `load_weights` takes it.

    Raises:
        WeightsError: They cannot be had.
    """
    loaded = load_weights(backbone, weights)
    sha256 = loaded.source.get("sha256") or ("" if loaded.state is None else digest(loaded.state))
    return Start(str(loaded.source.get("asked", weights)), str(sha256)), loaded


def load_start(backbone: str, start: Start) -> LoadedWeights:
    """Load the weights that a training names.

    Raises:
        WeightsError: They cannot be had, or are others by now.
    """
    found, loaded = name_start(backbone, start.word)
    if found.sha256 != start.sha256:
        raise WeightsError(
            f"--weights {start.word}: these are other weights than when the study began "
            f"({found.sha256[:12]}, not {start.sha256[:12]})",
            "Repeat the command: it takes them as they are now.",
        )
    return loaded
