"""What a passport says first: nothing that was frozen is said to have changed."""

from __future__ import annotations

import pytest

from surgery.study.verdict import judge_passport


@pytest.mark.parametrize(
    ("cka", "said"),
    [
        ({"stage1": 1.0, "stage2": 0.9999}, "no stage sees images otherwise"),
        ({"stage1": 1.0, "stage2": 0.41}, "stage2 changed most (CKA 0.41)"),
    ],
)
def test_the_stage_that_changed_most_is_named_if_one_did(cka, said):
    rows = [{"criticality": 0.0}, {"criticality": 3.0}, {"criticality": 0.0}]
    (sentence,) = judge_passport({"cka": cka, "criticality": {"modules": rows}, "gap": None})
    assert said in sentence
    assert "2 of 3 modules may each be put back" in sentence
