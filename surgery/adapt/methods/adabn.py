"""AdaBN: batch norm measures the target; nothing learns."""

from __future__ import annotations

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from surgery.adapt.game import Game
from surgery.adapt.pairs import Pair
from surgery.train.rule import Losses


def learn(game: Game, pair: Pair) -> Losses:
    """Count one batch of the target into the statistics of every batch norm.

    References:
        Li et al. 2016, arXiv:1603.04779, algorithm 1.
    """
    assert pair.target is not None
    norms = [module for module in game.update.suffix.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        if game.update.progress.updates == 0:
            norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches since then
        norm.train(len(pair.target.items) > 1)
    with torch.no_grad():
        game.see(pair.target)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.eval()
        norm.momentum = momentum  # of whatever learns next
    game.stay()
    return {"loss": 0.0}
