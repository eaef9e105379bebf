"""LitServe as its guide has it: `python lit_app.py PORT`.

Images come as base64 in JSON: what a form has uploaded cannot be sent on to its worker process.
"""

from __future__ import annotations

import base64
import io
import sys

import litserve
import numpy as np
from fastapi import Response
from PIL import Image
from vision import Vision, to_png


class Api(litserve.LitAPI):
    """Labels, or a mask."""

    def setup(self, device: str) -> None:
        """Load the model in the worker."""
        self.vision = Vision()

    def decode_request(self, request) -> Image.Image:
        """Open the image of a request; an annotation of it would be read as its form."""
        return Image.open(io.BytesIO(base64.b64decode(request["image"])))

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
