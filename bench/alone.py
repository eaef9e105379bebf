"""The same images answered in a loop by one process, without HTTP: what serving is measured against.

    python -m bench.alone STORE NAME@VERSION FOLDER [--seconds 10]

Bytes in memory are decoded, prepared, run, and made labels or a mask, with the functions that the service
calls. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import base64
import json
import time
from pathlib import Path
from typing import Any

from surgery.artifact.answer import encode_mask_png
from surgery.artifact.image import decode_image
from surgery.artifact.session import Answer, answer_image, open_session
from surgery.artifact.store import Store


def main() -> None:
    """Answer in a loop; print how long each image took, and the answers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("ref")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=10)
    options = parser.parse_args()
    stored = Store(options.store).resolve(options.ref)
    images = [path.read_bytes() for path in sorted(options.folder.iterdir())]
    session = open_session(stored.graph("cpu"), "cpu")

    def answer(data: bytes) -> Answer:
        return answer_image(session, stored.manifest, decode_image(data))

    answers = [to_plain(answer(data)) for data in images]  # warms up, too
    times: list[float] = []
    begun = now = time.perf_counter()
    while now - begun < options.seconds:
        answer(images[len(times) % len(images)])
        now, before = time.perf_counter(), now
        times.append((now - before) * 1e3)
    print(json.dumps({"per_second": len(times) / (now - begun), "ms": times, "answers": answers}))


def to_plain(answer: Answer) -> Any:
    """Return labels, or the mask's PNG in base64."""
    if answer.mask is None:
        return answer.labels
    return base64.b64encode(encode_mask_png(answer.mask)).decode("ascii")


if __name__ == "__main__":
    main()
