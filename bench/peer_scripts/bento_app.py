"""BentoML as its guide has it, an image in and labels or an image out: `bentoml serve bento_app:Peer`."""

from __future__ import annotations

from typing import Any

import bentoml
from PIL.Image import Image
from vision import Vision


@bentoml.service(name="peer")
class Peer:
    """Labels, or a mask."""

    def __init__(self) -> None:
        self.vision = Vision()

    @bentoml.api
    def labels(self, image: Image) -> dict[str, Any]:
        """Answer with every class."""
        return {"labels": self.vision.labels(self.vision(image))}

    @bentoml.api
    def mask(self, image: Image) -> Image:
        """Answer with the index mask."""
        return self.vision.mask(self.vision(image))
