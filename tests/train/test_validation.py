"""What validation compares with: whole masks at the images' own size, each beside its image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from surgery.artifact.manifest import InputSpec
from surgery.data.readers import read_table
from surgery.data.targets import resolve_target
from surgery.nets.assemble import build_model
from surgery.nets.weights import LoadedWeights
from surgery.train.feed import Feed


def open_feed(data: Path, spec: InputSpec, head: str, cut: int) -> Feed:
    table = read_table(data)
    masks = table.task == "segment"
    targets = resolve_target(table, ("box",) if masks else (), ("void",) if masks else ())
    logits = targets.output.logits
    weights = LoadedWeights(None, {})
    model = build_model("test_efficientnet", head, table.task, logits, None, 0.0, weights, 0)
    return Feed(model, cut, table, spec, targets, "flip", 2, 7, torch.device("cpu"), 2, 1.0)


def test_the_truth_of_a_mask_is_as_large_as_its_image(boxes):
    # Half the pixels: what the network learns from is smaller than what is scored. The second time from the cache.
    feed = open_feed(boxes, InputSpec("native", max_pixels=48 * 40 // 2), "deconv", 1)
    for _ in range(2):
        feed.fill(lambda done, records: None)
        seen = 0
        for batch, truths in feed.validation(3):
            assert batch.targets.dtype == torch.int64
            for item, truth in zip(batch.items, truths, strict=True):
                assert item.mask is not None
                assert np.array_equal(truth, feed.targets.encode_mask(item.mask.read()))
                assert truth.shape != tuple(batch.targets.shape[1:])
                seen += 1
        assert seen == 4
    feed.close()


def test_the_truth_of_a_label_stands_beside_its_image(stripes):
    feed = open_feed(stripes, InputSpec("crop", 32, 32), "avg", 0)
    pairs = [pair for batch, truths in feed.validation(5) for pair in zip(batch.items, truths, strict=True)]
    assert [item for item, _ in pairs] == feed.table.of("val")
    assert all(truth == item.label for item, truth in pairs)
