from __future__ import annotations

from random import Random

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.records import Anchor
from mira_megatron.scoring.rank_agreement import agreement, compare, mean_difference

_NAN = float("nan")


def _anchors(num_anchors: int = 4) -> tuple[Anchor, ...]:
    return tuple(
        Anchor(
            anchor_id=f"A{number}",
            name=f"name {number}",
            description=None,
            part=None,
            cluster_size=None,
            aliases=(),
            medoid=None,
            references=(),
            rubric_version="v",
        )
        for number in range(1, num_anchors + 1)
    )


def test_compare_takes_each_anchor_over_the_records_that_have_both_scores() -> None:
    first = np.array([[1, 5, 5, 1], [2, 6, 5, 2], [3, _NAN, 5, 3], [4, 7, 5, 4]], float)
    second = np.array([[2, 9, 1, 7], [4, 8, 2, 7], [6, 8, 3, 7], [8, 7, 4, _NAN]], float)
    found = compare(first, second, anchors=_anchors())
    assert [each.n for each in found] == [4, 3, 4, 3]
    assert [each.rho for each in found] == [pytest.approx(1), pytest.approx(-1), None, None]
    assert [each.reason for each in found] == [
        *(None, None, "one_score_in_first", "one_score_in_second"),
    ]
    assert [each.mean_abs_difference for each in found] == [2.5, 2.0, 2.5, 5.0]
    assert mean_difference(found) == 2.5
    # The third has nothing to rank and is left out; the fourth ranks nothing and counts as 0.
    assert agreement(found) == pytest.approx(0)
    assert agreement(found[:1] + found[2:3]) == pytest.approx(1)


def test_agreement_where_nothing_can_be_compared_is_none() -> None:
    empty = np.empty((0, 4))
    found = compare(empty, empty, anchors=_anchors())
    assert {each.reason for each in found} == {"too_few_records"}
    assert (agreement(found), mean_difference(found)) == (None, None)
    same = np.full((5, 4), 7.0)
    assert agreement(compare(same, same, anchors=_anchors())) is None


_SCORES = st.lists(
    st.lists(st.one_of(st.none(), st.integers(0, 10)), min_size=2, max_size=2),
    min_size=1,
    max_size=12,
)


def _array(rows: list[list[int | None]]) -> npt.NDArray[np.float64]:
    return np.array(rows, np.float64)


@given(_SCORES)
def test_scores_agree_with_themselves_in_full_wherever_they_can_be_ranked(
    rows: list[list[int | None]],
) -> None:
    scores = _array(rows)
    found = compare(scores, scores, anchors=_anchors(2))
    for slot, each in enumerate(found):
        known = scores[~np.isnan(scores[:, slot]), slot]
        assert each.n == len(known)
        assert each.rho == (pytest.approx(1) if len(set(known)) > 1 and each.n > 2 else None)
        assert each.mean_abs_difference == (0 if each.n else None)


@given(_SCORES, st.randoms(use_true_random=False))
def test_the_order_of_the_records_says_nothing(
    rows: list[list[int | None]], random: Random
) -> None:
    first = _array(rows)
    second = _array([[None if value is None else 10 - value for value in row] for row in rows])
    order = random.sample(range(len(rows)), len(rows))
    straight = compare(first, second, anchors=_anchors(2))
    shuffled = compare(first[order], second[order], anchors=_anchors(2))
    for one, other in zip(straight, shuffled, strict=True):
        assert (one.n, one.reason) == (other.n, other.reason)
        assert one.rho == (None if other.rho is None else pytest.approx(other.rho))
