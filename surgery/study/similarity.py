"""How alike two models see the same images, stage by stage, and how far apart their weights lie."""

from __future__ import annotations

import torch

from surgery.study.cka import FEWEST, LinearCKA
from surgery.study.line import Progress
from surgery.study.measure import flatten
from surgery.study.modules import distance, first_difference, list_modules
from surgery.study.sample import Sample
from surgery.study.subject import Subject


def compare_stages(first: Subject, second: Subject, sample: Sample, progress: Progress) -> dict[str, float]:
    """Return linear CKA of the feature maps of each stage, flattened, over minibatches.

    Stages that are the same in both are run once, and are alike by 1. Minibatches of fewer than 4 images
    are left out.

    Args:
        first, second: Models of one backbone.
        sample: The images.
        progress: Called with (minibatches done, minibatches in all).

    Raises:
        ConfigError: If no minibatch holds 4 images.

    References:
        Neyshabur, Sedghi, Zhang 2020, arXiv:2008.11687, section 3.2 (feature similarity).
    """
    net, other = first.model.backbone, second.model.backbone
    cut = min(first_difference(first.state, second.state, first.model), len(net.info))
    found = {stage.name: LinearCKA() for stage in net.info[cut:]}
    for k, batch in enumerate(sample.batches):
        if cut < len(net.info) and len(batch.items) >= FEWEST:
            with torch.inference_mode():
                x = first.model.normalise(batch.inputs["images"])
                state, _ = net.run(x, 0, cut)
                mine, theirs = net.run(state, cut)[1], other.run(state, cut)[1]
            for stage, a, b in zip(found.values(), mine, theirs, strict=True):
                stage.add(flatten(a), flatten(b))
        progress(k + 1, len(sample.batches))
    alike = {stage.name: 1.0 for stage in net.info[:cut]}
    return alike | {name: cka.value for name, cka in found.items()}


def measure_distances(
    first: Subject, second: Subject, random: dict[str, torch.Tensor], backbone_only: bool = False
) -> dict[str, dict[str, float | None]]:
    """Return for each module the L2 distance of the parameters of two models.

    Args:
        first, second: Models of one network.
        random: A random start of it, which says what is far.
        backbone_only: Leave the head out, where the two have different ones.

    Returns:
        `absolute`, and `relative`: the share of the distance between the first model and the random start;
        None where that is 0.

    References:
        Neyshabur, Sedghi, Zhang 2020, arXiv:2008.11687, section 3.2 (distance in parameter space).
    """
    found: dict[str, dict[str, float | None]] = {"absolute": {}, "relative": {}}
    random = {key: value.to(first.state[key].device) for key, value in random.items()}
    for module in list_modules(first.model):
        if not module.parameters or (backbone_only and module.name == "head"):
            continue
        apart = distance(first.state, second.state, module.parameters)
        far = distance(first.state, random, module.parameters)
        found["absolute"][module.name] = apart
        found["relative"][module.name] = apart / far if far else None
    return found
