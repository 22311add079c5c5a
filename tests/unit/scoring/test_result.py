"""The one result of judging an answer, for rewards and benchmarks alike."""

import pytest

from nbg_lightning.rewards import RewardResult
from nbg_lightning.scoring import NOT_FOUND, Verdict, failure, unreadable


@pytest.mark.parametrize(
    ("score", "status"),
    [(None, "ok"), (1.0, "error"), (0.0, "timeout"), (None, "fine"), (0.0, "parse_failure"), (1.0, None)],
)
def test_only_ok_has_a_score(score, status):
    with pytest.raises(
        ValueError, match=r"^Verdict is invalid: score .* with status .*; give a score with 'ok'"
    ) as raised:
        Verdict(score, status)
    assert "\n" not in str(raised.value)


def test_an_answer_that_is_not_found_is_wrong_and_a_failure_has_no_score():
    assert (NOT_FOUND.score, NOT_FOUND.status, NOT_FOUND.parsed) == (0.0, "ok", False)
    assert unreadable("too long") == Verdict(0.0, "ok", "too long", False)
    assert failure("the judge is gone") == Verdict(None, "error", "the judge is gone")


def test_rewards_and_benchmarks_have_one_result():
    assert RewardResult is Verdict
