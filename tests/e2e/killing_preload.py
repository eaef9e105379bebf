"""What the fork server of `killing` loads once."""

from __future__ import annotations

import cv2
import onnxruntime  # noqa: F401
import onnxscript  # noqa: F401
import timm  # noqa: F401
import torch

import surgery.cli
import surgery.data.check
import surgery.data.readers
import surgery.deliver.package
import surgery.recipes.finetune
import surgery.recipes.reading
import surgery.report.page
import surgery.train.engine
import surgery.train.feed  # noqa: F401

torch.set_num_threads(1)  # no pool of threads that a fork would lose
cv2.setNumThreads(1)
