"""LitServe as its guide has it: `python lit_app.py PORT`."""

from __future__ import annotations

import sys

import litserve
import numpy as np
from fastapi import Request, Response
from PIL import Image
from vision import Vision, to_png


class Api(litserve.LitAPI):
    """Labels, or a mask."""

    def setup(self, device: str) -> None:
        """Load the model in the worker."""
        self.vision = Vision()

    def decode_request(self, request: Request) -> Image.Image:
        """Open the image of a form."""
        return Image.open(request["image"].file)

    def predict(self, image: Image.Image) -> np.ndarray:
        """Return the logits."""
        return self.vision(image)

    def encode_response(self, logits: np.ndarray) -> Response:
        """Reply."""
        if self.vision.facts["task"] == "segment":
            return Response(to_png(self.vision.mask(logits)), media_type="image/png")
        return {"labels": self.vision.labels(logits)}


if __name__ == "__main__":
    server = litserve.LitServer(Api(), accelerator="cpu")
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
