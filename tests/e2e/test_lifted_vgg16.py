"""The lifted VGG16 is Oxford's, by value and by what it sees."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from surgery.artifact.image import prepare_image, read_image
from surgery.artifact.manifest import InputSpec
from surgery.nets.assemble import Model, build_model, embed
from surgery.nets.weights import load_weights

DATA = os.environ.get("SURGERY_DATA")
BATCH = 16
INPUT = InputSpec("crop", 224, 224)


@pytest.fixture(scope="module")
def model() -> Model:
    weights = load_weights("vgg16", "imagenet")
    return build_model("vgg16", "avg", "classify", 2, None, 0.0, weights, 0).eval()


def test_values_are_those_of_the_original(model: Model) -> None:
    state = model.backbone.timm_state()
    assert len(state) == 26
    # Blue comes first in the original, and its scale is folded in.
    first = state["features.0.weight"][0, 2, 0, 0] / (255 * 0.225)
    assert first.item() == pytest.approx(0.42947057, abs=1e-6)
    assert state["features.28.bias"][0].item() == pytest.approx(0.18837857, abs=1e-8)


@torch.inference_mode()
def embed_split(model: Model, folder: Path) -> tuple[np.ndarray, list[str]]:
    """Pooled features of the deepest stage, (n, 512), and the class of each image."""
    files = sorted(path for path in folder.glob("*/*") if path.is_file())
    found: list[Tensor] = []
    with ThreadPoolExecutor(2) as pool:
        for start in range(0, len(files), BATCH):
            batch = pool.map(lambda p: prepare_image(read_image(p), INPUT), files[start : start + BATCH])
            images = torch.from_numpy(np.stack(list(batch)))  # (n, 224, 224, 3)
            _, features = model.backbone.run(model.normalise(images))
            found.append(embed(features))
    return torch.cat(found).numpy(), [path.parent.name for path in files]


@pytest.mark.data
@pytest.mark.timeout(1200)
def test_pooled_features_tell_ants_from_bees(model: Model) -> None:
    folder = Path(DATA or "", "hymenoptera")
    train, labels = embed_split(model, folder / "train")
    val, expected = embed_split(model, folder / "val")
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
    score = classifier.fit(train, labels).score(val, expected)
    print(f"hymenoptera val accuracy of pooled vgg16 features: {score:.4f}")
    assert score >= 0.92
