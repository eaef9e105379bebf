"""fastai's `vision_learner` on a frozen body, as its documentation trains one.

Runs in the peers' environment. fastai's defaults stay as they are, batch norm that learns in the frozen
body among them: a user gets the same.
"""

from __future__ import annotations

import time
from typing import Any

import torch
import torchvision
from fastai.vision.all import (
    ImageDataLoaders,
    Learner,
    Normalize,
    RandomResizedCrop,
    accuracy,
    aug_transforms,
    set_seed,
    vision_learner,
)
from safetensors.torch import load_file
from task import answer, read_task


def make_learner(dls: Any, backbone: str, weights: str) -> Learner:
    """Return the learner with a frozen body from the weights in the file."""
    if backbone == "vgg16":  # timm's keeps its dense layers, for which there are no weights

        def arch(pretrained: bool) -> torch.nn.Module:
            network = torchvision.models.vgg16()
            network.load_state_dict(load_file(weights), strict=False)
            return network

        return vision_learner(dls, arch, metrics=accuracy)
    return vision_learner(dls, backbone, metrics=accuracy, pretrained_cfg_overlay={"file": weights})


def main() -> None:
    """Train, and print seconds and accuracies."""
    task = read_task()
    set_seed(task.seed, reproducible=True)
    dls = ImageDataLoaders.from_folder(
        task.data,
        train="train",
        valid="val",
        item_tfms=RandomResizedCrop(task.size, min_scale=0.35),
        batch_tfms=[*aug_transforms(), Normalize.from_stats(task.mean, task.std)],
        bs=task.batch_size,
        num_workers=task.workers,
        device=torch.device("cuda" if torch.cuda.is_available() else "cpu"),
    )
    learn = make_learner(dls, task.backbone, task.weights)
    started = time.perf_counter()
    with learn.no_bar():
        learn.fit_one_cycle(task.epochs)
    seconds = time.perf_counter() - started
    scores = [float(row[2]) for row in learn.recorder.values]  # train loss, val loss, accuracy
    answer(
        seconds=seconds, accuracy=scores[-1], best=max(scores), seen=[len(dls.train_ds), len(dls.valid_ds)]
    )


if __name__ == "__main__":
    main()
