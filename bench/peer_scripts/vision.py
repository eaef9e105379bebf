"""What each peer serves: one ONNX file, with the preparation and the answer that it wants.

Runs in the peers' environment; `$PEER_MODEL` names a JSON file with what is needed to know of the model.
"""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image


class Vision:
    """A model and what lies before and behind it."""

    def __init__(self) -> None:
        self.facts = json.loads(Path(os.environ["PEER_MODEL"]).read_text("utf-8"))
        self.session = onnxruntime.InferenceSession(self.facts["graph"], providers=["CPUExecutionProvider"])

    def __call__(self, image: Image.Image) -> np.ndarray:
        """Return the logits of an image, (c,) or (c, h, w)."""
        pixels = self.prepare(image.convert("RGB"))
        return self.session.run(["logits"], {"image": pixels[None]})[0][0]  # (h, w, 3) -> (1, h, w, 3)

    def prepare(self, image: Image.Image) -> np.ndarray:
        """Return the network's input, (h, w, 3) uint8: for labels a central box, else the image itself."""
        if self.facts["task"] == "segment":
            return np.asarray(image)
        width, height = self.facts["width"], self.facts["height"]
        if self.facts["size_rule"] == "resize":
            return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
        scale = min(image.width / width, image.height / height) * self.facts["crop_share"]
        left, top = (image.width - width * scale) / 2, (image.height - height * scale) / 2
        box = (left, top, left + width * scale, top + height * scale)
        return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR, box=box))

    def labels(self, logits: np.ndarray) -> list[dict[str, Any]]:
        """Return every class and its probability, the most probable first."""
        cooled = logits.astype(np.float64) / self.facts["temperature"]
        shares = np.exp(cooled - cooled.max())
        shares /= shares.sum()
        named = zip(self.facts["classes"], shares.tolist(), strict=True)
        return sorted(
            ({"label": label, "probability": share} for label, share in named),
            key=lambda row: -row["probability"],
        )

    def mask(self, logits: np.ndarray) -> Image.Image:
        """Return the index mask as a grey image."""
        winner = logits[0] > 0 if self.facts["activation"] == "sigmoid" else logits.argmax(0)
        values = np.asarray(self.facts["mask_values"], np.uint8)
        return Image.fromarray(values[winner.astype(np.intp)])


def to_png(image: Image.Image) -> bytes:
    """Return an image as the bytes of a PNG."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
