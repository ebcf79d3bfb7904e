from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.eval.statistics.loss import LOST, loss_bounds
from mira_megatron.eval.verdicts import Status

P, F, INFRA, CUT, NONE = Status.PASS, Status.FAIL, Status.INFRA, Status.TRUNCATED, Status.NO_CODE


def test_loss_bounds_by_hand() -> None:
    found = loss_bounds({"a": [P, F], "b": [INFRA, INFRA], "c": [P, CUT], "d": [F, NONE]})
    assert found.lowest == (0.5 + 0 + 0.5 + 0) / 4
    assert found.highest == (0.5 + 1 + 1 + 0.5) / 4
    assert found.highest_by_infra == (0.5 + 1 + 0.5 + 0) / 4
    assert found.of_answered == (0.5 + 1 + 0) / 3


def test_a_timeout_is_a_verdict_and_no_loss() -> None:
    found = loss_bounds({"a": [Status.TIMEOUT], "b": [Status.ERROR], "c": [P]})
    assert found.lowest == found.highest == found.of_answered == 1 / 3


def test_a_benchmark_whose_answers_are_all_lost_has_no_score_of_the_rest() -> None:
    found = loss_bounds({"a": [INFRA], "b": [NONE]})
    assert (found.lowest, found.highest, found.of_answered) == (0, 1, None)


@given(
    st.dictionaries(
        st.text(max_size=2), st.lists(st.sampled_from(list(Status)), min_size=1, max_size=4),
        min_size=1, max_size=6,
    )
)  # fmt: skip
def test_bounds_are_the_scores_of_the_worst_and_the_best_luck(
    tasks: dict[str, list[Status]],
) -> None:
    found = loss_bounds(tasks)
    for luck, bound in ((F, found.lowest), (P, found.highest)):
        known = {name: [luck if s in LOST else s for s in each] for name, each in tasks.items()}
        assert loss_bounds(known).lowest == pytest.approx(bound)
    assert found.lowest <= found.highest_by_infra <= found.highest


def test_a_task_without_a_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="no samples"):
        loss_bounds({"a": []})
    with pytest.raises(ValueError, match="no samples"):
        loss_bounds({})
