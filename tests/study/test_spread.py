"""Intervals over repeats, against values worked out by hand."""

from __future__ import annotations

import pytest

from surgery.study.spread import spread


def test_the_interval_of_three_repeats_is_students():
    found = spread([1.0, 2.0, 3.0])
    assert (found.mean, found.n) == (2.0, 3)
    assert found.half == pytest.approx(4.302653 / 3**0.5, abs=1e-5)  # t of 2 degrees at 0.975, deviation 1


def test_repeats_that_share_images_say_less():
    found = spread([1.0, 2.0, 3.0], reused=0.25)
    assert found.half == pytest.approx(4.302653 * (1 / 3 + 0.25) ** 0.5, abs=1e-5)


def test_one_repeat_has_no_interval_and_decides_nothing():
    found = spread([0.7])
    assert (found.mean, found.half, found.verdict, str(found)) == (0.7, None, "open", "0.700")


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([0.1, 0.11, 0.12], "above"),
        ([-0.1, -0.11, -0.12], "below"),
        ([0.1, -0.1, 0.05], "open"),
        ([0.0] * 3, "open"),
    ],
)
def test_the_verdict_is_whether_nought_lies_outside(values, verdict):
    assert spread(values).verdict == verdict
