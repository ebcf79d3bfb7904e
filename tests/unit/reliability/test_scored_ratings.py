"""Ratings in memory to record scores in memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rated_tables import Rating, ratings

from mira_megatron.records import NUM_SLOTS, RATING_STATUSES, RECORD_SCORE_SCHEMA
from mira_megatron.reliability import scored_ratings
from mira_megatron.reliability.scored_ratings import UNMASKED, score_ratings


def scored(*rows: Rating, masked: Sequence[int] = ()) -> list[dict[str, Any]]:
    """Scores with a fifth cut from each end and three slots needed; slots are masked from 1 on."""
    table = score_ratings(
        ratings(rows),
        trim_fraction=0.2,
        min_slots=3,
        is_masked=[slot in masked for slot in range(1, NUM_SLOTS + 1)],
    )
    assert table.schema == RECORD_SCORE_SCHEMA
    rows_scored: list[dict[str, Any]] = table.to_pylist()
    return rows_scored


def test_score_ratings_keeps_order_and_ids_and_scores_each_record() -> None:
    assert scored(("b", [0, 4, 5, 6, 10], "ok"), ("a", [1, 1, 1], "ok")) == [
        {"record_id": "b", "score": 5.0, "reason": None},
        {"record_id": "a", "score": 1.0, "reason": None},
    ]


@pytest.mark.parametrize(
    ("answered", "status", "reason"),
    [
        ([7, 8], "ok", "too_few_slots"),
        ([7, 8], "partial", "too_few_slots"),
        ([], "ok", "too_few_slots"),
        ([], "partial", "partial"),
        ([], "failed", "failed"),
        ([], "unparsed", "unparsed"),
        ([], "too_long", "too_long"),
        ([], "refused", "refused"),
    ],
)
def test_score_ratings_of_too_little_is_null_and_says_why(
    answered: list[float], status: str, reason: str
) -> None:
    assert scored(("a", answered, status)) == [{"record_id": "a", "score": None, "reason": reason}]


def test_score_ratings_scores_a_partial_answer_that_has_enough_slots() -> None:
    assert scored(("a", [7, 8, 9], "partial")) == [{"record_id": "a", "score": 8.0, "reason": None}]


def test_score_ratings_takes_a_score_of_zero_for_a_score() -> None:
    assert scored(("a", [0, 0, 0], "ok")) == [{"record_id": "a", "score": 0.0, "reason": None}]


def test_score_ratings_of_no_rows_is_an_empty_table() -> None:
    assert scored() == []


@given(
    rows=st.lists(
        st.tuples(
            st.text(),
            st.lists(st.integers(0, 10).map(float), max_size=NUM_SLOTS),
            st.sampled_from(RATING_STATUSES),
        ),
        max_size=6,
    )
)
def test_score_ratings_gives_a_row_per_rating_with_either_a_score_or_a_reason(
    rows: list[Rating],
) -> None:
    found = scored(*rows)
    assert [row["record_id"] for row in found] == [record_id for record_id, _, _ in rows]
    assert all((row["score"] is None) == (row["reason"] is not None) for row in found)


def test_score_ratings_does_not_depend_on_how_the_table_is_chunked() -> None:
    rows: list[Rating] = [(str(n), [n, n, n], "ok") for n in range(6)]
    whole = ratings(rows)
    chunked = pa.concat_tables([whole.slice(0, 1), whole.slice(1, 3), whole.slice(4)])
    assert score_ratings(chunked, trim_fraction=0.2, min_slots=3).to_pylist() == scored(*rows)
    assert score_ratings(whole.slice(2, 2), trim_fraction=0.2, min_slots=3).to_pylist() == scored(
        *rows[2:4]
    )


def test_score_ratings_leaves_masked_slots_out() -> None:
    row: Rating = ("a", [10, 1, 2, 3, 10], "ok")
    assert scored(row, masked=[1, 5]) == [{"record_id": "a", "score": 2.0, "reason": None}]


@pytest.mark.parametrize(
    ("answered", "status", "masked", "reason"),
    [
        ([7, 8, 9], "ok", [1], "too_few_slots"),  # two are left
        ([7, 8, 9], "ok", range(1, 4), "too_few_slots"),  # none of those that were answered
        ([7, 8, 9], "ok", range(1, NUM_SLOTS + 1), "all_slots_masked"),
        ([], "failed", range(1, NUM_SLOTS + 1), "failed"),
        ([], "ok", range(1, NUM_SLOTS + 1), "all_slots_masked"),
        ([], "unparsed", [1], "unparsed"),
    ],
)
def test_score_ratings_of_too_little_that_is_unmasked_says_why(
    answered: list[float], status: str, masked: Sequence[int], reason: str
) -> None:
    expected = [{"record_id": "a", "score": None, "reason": reason}]
    assert scored(("a", answered, status), masked=masked) == expected


@pytest.mark.parametrize("score", [-0.25, 10.5, math.nan, math.inf, 65.535])
@pytest.mark.parametrize("masked", [(), (2,), range(1, NUM_SLOTS + 1)])
def test_score_ratings_outside_0_to_10_is_refused(score: float, masked: Sequence[int]) -> None:
    with pytest.raises(ValueError, match=r"a slot's score is .*; expected 0-10, or null"):
        scored(("a", [1, score, 3], "ok"), masked=masked)


# A slot: null, a whole score, thousandths, or any float32 that an average over odds may give.
SLOT = st.none() | st.integers(0, 10).map(float) | st.floats(0, 10, width=32)


def exact_score(slots: Sequence[float | None], percent: int, min_slots: int) -> Fraction | None:
    """The definition, in exact arithmetic; a float's product with 1,000 is rounded as it always is.

    Halves go to the even thousandth.
    """
    usable = sorted(round(Fraction(slot * 1000.0)) for slot in slots if slot is not None)
    cut = len(usable) * percent // 100
    left = usable[cut : len(usable) - cut]
    return Fraction(sum(left), 1000 * len(left)) if len(usable) >= min_slots else None


@given(
    records=st.lists(st.lists(SLOT, min_size=NUM_SLOTS, max_size=NUM_SLOTS), max_size=7),
    is_masked=st.lists(st.booleans(), min_size=NUM_SLOTS, max_size=NUM_SLOTS)
    | st.just(list(UNMASKED)),
    percent=st.integers(0, 49),
    min_slots=st.integers(1, NUM_SLOTS),
    at_once=st.integers(1, 8),
)
def test_score_ratings_is_the_exact_mean_of_what_is_neither_masked_nor_cut(
    records: list[list[float | None]],
    is_masked: list[bool],
    percent: int,
    min_slots: int,
    at_once: int,
) -> None:
    rows: list[Rating] = [(str(n), slots, "ok") for n, slots in enumerate(records)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scored_ratings, "_RECORDS_AT_ONCE", at_once)
        table = score_ratings(
            ratings(rows),
            trim_fraction=percent / 100,
            min_slots=min_slots,
            is_masked=is_masked,
        )
    for slots, found in zip(records, table["score"].to_pylist(), strict=True):
        left = [slot for slot, masked in zip(slots, is_masked, strict=True) if not masked]
        exact = exact_score(left, percent, min_slots)
        # One division in float64, then float32.
        assert found == (None if exact is None else float(np.float32(float(exact))))


def test_score_ratings_of_more_records_than_are_held_at_once() -> None:
    number = 3 * scored_ratings._RECORDS_AT_ONCE + 5
    scores = np.tile(np.arange(number, dtype=np.float32)[:, np.newaxis] % 11, NUM_SLOTS)
    table = pa.table(
        {
            "record_id": [str(n) for n in range(number)],
            "scores": pa.FixedSizeListArray.from_arrays(pa.array(scores.ravel()), NUM_SLOTS),
            "status": ["ok"] * number,
        }
    )
    found = score_ratings(table, trim_fraction=0.1, min_slots=5)
    assert found["score"].to_pylist() == [float(n % 11) for n in range(number)]
    assert found["record_id"].equals(table["record_id"])
