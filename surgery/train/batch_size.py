"""`--batch-size auto`: the largest batch that trains within the memory of a GPU."""

from __future__ import annotations

from collections.abc import Callable

import torch
from accelerate.utils.memory import should_reduce_batch_size
from torch import nn

from surgery.nets.backbone import set_trainable
from surgery.train.checkpoint import restore_weights
from surgery.train.cut import Suffix
from surgery.train.engine import Loop, learnt_keys
from surgery.train.feed import Feed
from surgery.train.losses import Loss
from surgery.train.optimizers import make_optimizer

HEADROOM = 0.1
"""Share of the GPU's memory that stays free: batches may have one image more, and memory falls to pieces."""
LEAST_STEPS = 16
"""Steps that an epoch keeps, however much memory there is: a model learns by steps."""


def bound_batch(train_images: int, accumulate: int, usual: int) -> int:
    """Return the largest batch that is worth trying.

    Args:
        train_images: Images of an epoch.
        accumulate: Batches that make one step.
        usual: What small data has anyway.
    """
    return max(usual, train_images // (LEAST_STEPS * accumulate))


def find_largest(trial: Callable[[int], None], most: int) -> int:
    """Return the largest of 1, 2, 4, … up to `most` whose trial does not run out of memory; 0 if none.

    Args:
        trial: Trains one step with so many images.
        most: Upper bound, in images.
    """
    found, size = 0, 1
    while size <= most:
        try:
            trial(size)
        except RuntimeError as error:  # torch.OutOfMemoryError is one; cuDNN and others have their own
            if not isinstance(error, torch.OutOfMemoryError) and not should_reduce_batch_size(error):
                raise
            break
        found, size = size, 2 * size
    return found


def measure_batch(loop: Loop, most: int, free_share: Callable[[], float] | None = None) -> int:
    """Find the largest batch for the most demanding phase of a loop: most layers learn, at the full size.

    Each trial is a whole step with copies of the largest training image, its frozen part included, in
    this process alone. The model and the random state are left as they were.

    Args:
        loop: The run, not begun yet.
        most: Upper bound, in images.
        free_share: Tells which share of the device's memory is free; None asks CUDA.

    Returns:
        A power of two, or 0 if not even one image fits.
    """
    model, options = loop.model, loop.options
    phase = min(loop.phases, key=lambda phase: phase.first)
    model.to(loop.accelerator.device).to(memory_format=torch.channels_last)
    set_trainable(model.backbone, phase.first, options.train_bn)
    state = model.state_dict()
    before = {key: state[key].to("cpu", copy=True) for key in learnt_keys(model, phase.first)}
    random = torch.get_rng_state()
    feed = loop.open_feed(phase.first, 1.0)
    optimizer = make_optimizer(model, phase, options.weight_decay, options.optimizer, options.layer_decay)
    suffix = Suffix(model, phase.first)

    def trial(count: int) -> None:
        _forget(suffix)
        with loop.accelerator.autocast():
            _train_once(suffix, feed, loop.loss, optimizer, count)
        if (free_share or _free_share)() < HEADROOM:
            raise torch.OutOfMemoryError(f"{count} images leave too little room")

    try:
        with loop.report.task("trying batch sizes"):
            return find_largest(trial, most)
    finally:
        feed.close()
        _forget(suffix)
        restore_weights(model, before)
        torch.set_rng_state(random)


def _train_once(
    suffix: nn.Module, feed: Feed, loss: Loss, optimizer: torch.optim.Optimizer, count: int
) -> None:
    suffix.train(count > 1)  # batch norm cannot learn from one image, and needs about as much without
    batch = feed.rehearse(count)
    value = loss(suffix(batch.inputs, batch.size).float(), batch.targets)
    value.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def _forget(suffix: nn.Module) -> None:
    """Let go of gradients and of what the allocator keeps, which the next trial would count as taken."""
    for parameter in suffix.parameters():
        parameter.grad = None
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _free_share() -> float:
    free, total = torch.cuda.mem_get_info()
    return free / total
