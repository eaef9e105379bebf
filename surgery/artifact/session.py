"""A network that answers: an ONNX graph opened on a device, and the one path through it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from surgery.artifact.answer import LabelAnswer, Mask, answer_labels, answer_mask
from surgery.artifact.errors import ConfigError, StoreError, SurgeryError
from surgery.artifact.graph import GraphCache, first_line, open_on_cpu, open_on_cuda, options_that_release
from surgery.artifact.image import Pixels, prepare_image
from surgery.artifact.manifest import Manifest
from surgery.artifact.novelty import Gauge, read_gauge
from surgery.artifact.store import StoredVersion

Floats = NDArray[np.float32]

_OUTPUTS = ["logits", "embedding"]
_CAM = "cam"
_LARGE_PIXELS = 1 << 20


@dataclass(frozen=True)
class Session:
    """An opened graph. `run` may be called from several threads at once."""

    path: Path
    device: str
    """`cpu` or `cuda`: where it runs."""
    graph: Any
    """The onnxruntime session."""

    def run(self, images: Pixels, release: bool = False) -> tuple[Floats, Floats]:
        """Run the network.

        Args:
            images: RGB, shape (n, h, w, 3), uint8.
            release: Give back the memory that this run and those before it took; the next takes it anew.
                Runs of large images always do.

        Returns:
            logits, shape (n, c) or (n, c, h, w), and embedding, shape (n, d), float32.

        Raises:
            SurgeryError: If the runtime cannot do it, as when memory runs out.
        """
        logits, embedding = self._run(_OUTPUTS, images, release)
        return logits, embedding

    @property
    def explains(self) -> bool:
        """Whether the graph gives class activation maps; those of masks and of early versions do not."""
        return any(each.name == _CAM for each in self.graph.get_outputs())

    def run_explained(self, images: Pixels) -> tuple[Floats, Floats, Floats]:
        """Run the network, and say where the evidence for each class lies.

        Args:
            images: RGB, shape (n, h, w, 3), uint8.

        Returns:
            logits and embedding as `run` does, and cam, the class activation map, shape (n, c, h', w') in the
            size of the deepest feature map. Its mean over the positions plus a bias per class is the logits.

        Raises:
            StoreError: If the graph has no such output (see `explains`).
            SurgeryError: If the runtime cannot do it, as when memory runs out.

        References:
            Zhou et al. 2016, arXiv:1512.04150.
        """
        if not self.explains:
            raise StoreError(
                f"{self.path}: this graph has no output '{_CAM}'",
                "export a classifier of a pooled head again (`surgery export NAME`) to give it one.",
            )
        logits, embedding, cam = self._run([*_OUTPUTS, _CAM], images)
        return logits, embedding, cam

    def _run(self, outputs: list[str], images: Pixels, release: bool = False) -> list[Floats]:
        # A process that has once seen a large image would keep what it took for ever.
        release = release or images.shape[1] * images.shape[2] > _LARGE_PIXELS
        options = options_that_release() if release else None
        try:
            answers: list[Floats] = self.graph.run(outputs, {"image": images}, options)
        # onnxruntime's errors have no common base but Exception.
        except Exception as error:
            shape, reason = images.shape, first_line(error)
            raise SurgeryError(f"{self.path}: cannot run on {images.dtype} {shape} ({reason})") from error
        return answers


@dataclass(frozen=True)
class Answer:
    """What a model answers for one image: labels or a mask."""

    labels: list[LabelAnswer] | None
    mask: Mask | None
    """Index mask in the image's own size, shape (h, w)."""
    logits: Floats
    """Shape (c,) or (c, h, w); h and w are those of the network's input."""
    embedding: Floats
    """Shape (d,)."""
    milliseconds: dict[str, float]
    """Time of each step: `prepare`, `network`, `answer`."""
    cam: Floats | None = None
    """Class activation map, shape (c, h', w'), if it was asked for and the graph gives one."""
    novelty: float | None = None
    """Probability that an image of the training's kind lies as far out, if there was a gauge."""


def open_session(
    path: Path | str,
    device: str = "auto",
    threads: int = 0,
    cache: GraphCache | None = None,
    sha256: str = "",
) -> Session:
    """Open an ONNX graph.

    Args:
        path: The file. Input `image` uint8 (n, h, w, 3) RGB; outputs `logits` and `embedding`.
        device: `cpu`, `cuda`, or `auto`: CUDA where it can be opened, else the CPU.
        threads: Threads of one run on the CPU; 0 for one per core.
        cache: Where its optimised form for the CPU is kept, if it is to be.
        sha256: Of the file, which the cache knows it by.

    Raises:
        ConfigError: If `device` is unknown, or is `cuda` and CUDA cannot be opened.
        StoreError: If the file is missing, no ONNX graph, or a graph of other inputs or outputs.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device is {device!r}", "choose auto, cpu or cuda.")
    path = Path(path)
    if not path.is_file():
        raise StoreError(f"{path}: no such file", "`surgery models list` shows what the store holds.")
    if device != "cpu":
        graph, reason = open_on_cuda(path, threads)
        if graph is not None:
            return _checked(Session(path, "cuda", graph))
        if device == "cuda":
            hint = "use --device cpu, or auto, which takes CUDA only where there is one."
            raise ConfigError(f"device is 'cuda', but {reason}", hint)
    return _checked(Session(path, "cpu", open_on_cpu(path, threads, cache, sha256)))


def open_version(stored: StoredVersion, device: str = "auto", threads: int = 0) -> Session:
    """Open the graph that a version serves on a device.

    Its precision is `manifest.precision_on(session.device)`.

    Args:
        stored: The version.
        device: `cpu`, `cuda`, or `auto`: CUDA where it can be opened, else the CPU.
        threads: Threads of one run on the CPU; 0 for one per core.

    Raises:
        ConfigError, StoreError: See `open_session`.
    """
    manifest = stored.manifest
    if device == "auto" and manifest.graph_file("cuda") != manifest.graph_file("cpu"):
        try:
            return open_session(stored.graph("cuda"), "cuda", threads)
        except ConfigError:
            return open_session(stored.graph("cpu"), "cpu", threads)
    return open_session(stored.graph("cpu" if device == "auto" else device), device, threads)


def open_gauge(stored: StoredVersion, session: Session) -> Gauge | None:
    """Return what tells the novelty of images by a version's session; None if the version cannot tell.

    Raises:
        StoreError: If the file is damaged.
    """
    return read_gauge(stored.path, stored.manifest.precision_on(session.device))


def answer_image(
    session: Session, manifest: Manifest, image: Pixels, explain: bool = False, gauge: Gauge | None = None
) -> Answer:
    """Return a model's answer for one decoded image: the one path from pixels to answer.

    Args:
        session: The opened graph of the version.
        manifest: The version's manifest.
        image: RGB, shape (h, w, 3), uint8, any size.
        explain: Also the class activation map, where the graph gives one.
        gauge: What tells its novelty, if that is wanted.

    Raises:
        StoreError: If graph and manifest do not belong together.
        SurgeryError: If the network cannot run or answers no finite numbers.
    """
    start = time.perf_counter()
    prepared = prepare_image(image, manifest.input)
    ready = time.perf_counter()
    run = session.run_explained if explain and session.explains else session.run
    logits, embedding, *more = (each[0] for each in run(prepared[None]))  # (h, w, 3) -> (1, h, w, 3)
    done = time.perf_counter()
    labels, mask = read_logits(logits, (image.shape[1], image.shape[0]), manifest)
    novelty = None if gauge is None else gauge.novelty(embedding)
    end = time.perf_counter()
    spans = {"prepare": ready - start, "network": done - ready, "answer": end - done}
    milliseconds = {step: round(span * 1e3, 3) for step, span in spans.items()}
    return Answer(labels, mask, logits, embedding, milliseconds, more[0] if more else None, novelty)


def read_logits(
    logits: Floats, size: tuple[int, int], manifest: Manifest
) -> tuple[list[LabelAnswer] | None, Mask | None]:
    """Return what a network's logits mean for one image: its labels, or its mask.

    Args:
        logits: Shape (c,) or (c, h, w).
        size: The image's own (width, height).
        manifest: The version's manifest.

    Raises:
        StoreError: If the logits do not fit the manifest.
        SurgeryError: If one is not finite.
    """
    if manifest.task == "classify":
        return answer_labels(logits, manifest.output), None
    return None, answer_mask(logits, size, manifest.output)


def _checked(session: Session) -> Session:
    """Return the session if inputs and outputs are those of a model of this store."""
    inputs = [(each.name, each.type) for each in session.graph.get_inputs()]
    outputs = [each.name for each in session.graph.get_outputs()]
    if inputs != [("image", "tensor(uint8)")] or not set(_OUTPUTS) <= set(outputs):
        raise StoreError(
            f"{session.path}: takes {inputs} and answers {outputs}; "
            "'image' of tensor(uint8), 'logits' and 'embedding' are wanted",
            "export the model with surgery; graphs of other programs are not served.",
        )
    return session
