"""Self-training: what a slow teacher is sure of on the target becomes the label of another view."""

from __future__ import annotations

from surgery.adapt.game import Game
from surgery.adapt.pairs import Pair
from surgery.adapt.seen import probabilities
from surgery.train.rule import Losses


def learn(game: Game, pair: Pair) -> Losses:
    """Learn from one pair of batches. The teacher is the moving average of the model, and is what is stored.

    References:
        Tarvainen & Valpola 2017, arXiv:1703.01780 (mean teacher); French et al. 2018, arXiv:1706.05208,
        section 3 (confidence thresholding, for adaptation).
    """
    assert pair.target is not None
    assert pair.plain is not None
    taught = probabilities(game.ask_teacher(pair.plain), game.output)
    sureness, labels = taught.max(1)  # (n,) or (n, h, w)
    counts = (sureness >= game.confidence).float()
    source, target = game.see(pair), game.see(pair.target)
    task = game.task_loss(source, pair)
    answers = probabilities(target.logits, game.output).clamp(min=1e-7).log()
    agreed = answers.gather(1, labels[:, None])[:, 0]  # (n, k, …) -> (n, …)
    consistency = -(agreed * counts).mean()
    loss = game.descend(task + game.trade * consistency)
    used = counts.mean().item()
    return {"loss": loss, "task": task.item(), "domain": consistency.item(), "used": used}
