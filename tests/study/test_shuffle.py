"""What a pretrained start is said to give when blocks change places: no evidence is not evidence of nothing."""

from __future__ import annotations

import pytest

from surgery.study.fitting import Recipe
from surgery.study.shuffle import conclude, list_trainings, summarise
from surgery.study.start import Start

SWING = (-0.01, 0.0, 0.01)


def gains(whole, least):
    """The gains of each seed, with whole images and with the smallest blocks."""
    trainings = list_trainings("", "n", Start("imagenet", ""), (32, 8), False, Recipe(1), len(whole))
    value = {32: whole, 8: least}
    return summarise(
        {
            each: {"accuracy": 0.5 + value[each.block][each.seed] * (each.start == "pretrained")}
            for each in trainings
        }
    )


def around(mean, swing=1.0):
    return [mean + swing * step for step in SWING]


@pytest.mark.parametrize(
    ("whole", "least", "said"),
    [
        (around(0.233, 10), around(0.1, 10), "take more --seeds"),  # 0.233 ± 0.248
        ([0.35], [0.3], "take more --seeds"),
        (around(0.0, 10), around(0.0), "take more --seeds"),
        (around(0.0, 0.2), around(0.0), "try another backbone"),  # 0.000 ± 0.005
        (around(-0.1), around(0.0, 10), "try another backbone"),
        (around(0.3), around(0.28), "the lower layers are what to keep"),
        (around(0.3), around(0.02, 3), "cut late"),
        (around(0.3), around(0.25, 20), "outlives the shuffling cannot be told"),
    ],
)
def test_advice_follows_from_what_is_seen(whole, least, said):
    assert said in conclude(gains(whole, least))[1]
