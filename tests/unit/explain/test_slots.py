from __future__ import annotations

from collections import Counter

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.explain.slots import (
    COUNTED,
    MASKED,
    MISSING,
    TRIMMED_HIGH,
    TRIMMED_LOW,
    slot_roles,
)
from mira_megatron.reliability.scored_ratings import score_ratings

NOTHING = [False] * 15
_SCORE = st.none() | st.integers(0, 40).map(lambda quarters: quarters / 4)


def test_lowest_and_highest_slots_are_trimmed() -> None:
    scores = [5.0, 0.0, 10.0, 6.0, *[None] * 11]
    roles, arithmetic = slot_roles(scores, NOTHING, trim_fraction=0.25, min_slots=1)
    assert roles[:4] == [COUNTED, TRIMMED_LOW, TRIMMED_HIGH, COUNTED]
    assert roles[4:] == [MISSING] * 11
    assert (arithmetic.num_usable, arithmetic.num_trimmed_each_end) == (4, 1)
    assert (arithmetic.num_counted, arithmetic.score) == (2, 5.5)


def test_masked_slot_is_neither_counted_nor_trimmed() -> None:
    scores = [5.0, 0.0, 10.0, 6.0, 0.5, *[None] * 10]
    is_masked = [False, True, *[False] * 12, True]
    roles, arithmetic = slot_roles(scores, is_masked, trim_fraction=0.25, min_slots=1)
    assert roles[:5] == [COUNTED, MASKED, TRIMMED_HIGH, COUNTED, TRIMMED_LOW]
    assert roles[14] == MISSING
    assert arithmetic.score == 5.5


def test_of_equal_scores_the_first_slots_are_trimmed_low_and_the_last_ones_high() -> None:
    roles, _ = slot_roles([7.0] * 15, NOTHING, trim_fraction=0.1, min_slots=1)
    assert roles == [TRIMMED_LOW, *[COUNTED] * 13, TRIMMED_HIGH]


def test_too_few_usable_slots_give_no_score_and_trim_nothing() -> None:
    scores = [5.0, 1.0, 9.0, 6.0, *[None] * 11]
    roles, arithmetic = slot_roles(scores, NOTHING, trim_fraction=0.25, min_slots=5)
    assert roles[:4] == [COUNTED] * 4
    assert (arithmetic.score, arithmetic.num_counted, arithmetic.num_usable) == (None, 0, 4)


@given(
    scores=st.lists(_SCORE, min_size=15, max_size=15),
    is_masked=st.lists(st.booleans(), min_size=15, max_size=15),
    trim_fraction=st.sampled_from([0.0, 0.1, 0.2, 0.25, 0.29, 0.4]),
    min_slots=st.integers(1, 15),
)
def test_score_and_counts_are_those_of_aggregation(
    scores: list[float | None], is_masked: list[bool], trim_fraction: float, min_slots: int
) -> None:
    roles, arithmetic = slot_roles(
        scores, is_masked, trim_fraction=trim_fraction, min_slots=min_slots
    )
    ratings = pa.table(
        {
            "record_id": ["a"],
            "scores": pa.array([scores], pa.list_(pa.float32(), 15)),
            "status": ["ok"],
        }
    )
    (expected,) = score_ratings(
        ratings, trim_fraction=trim_fraction, min_slots=min_slots, is_masked=tuple(is_masked)
    )["score"].to_pylist()
    assert arithmetic.score == expected
    counted = Counter(roles)
    assert counted[TRIMMED_LOW] == counted[TRIMMED_HIGH] == arithmetic.num_trimmed_each_end
    assert counted[MISSING] == scores.count(None)
    assert counted[MASKED] == sum(
        score is not None and masked for score, masked in zip(scores, is_masked, strict=True)
    )
