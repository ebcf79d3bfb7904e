"""A table of ratings to a table of record scores, in memory.

Shape letters: R records.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mira_megatron.records import NUM_SLOTS, RECORD_SCORE_SCHEMA
from mira_megatron.reliability.trimmed_mean import NO_SCORE, UNITS_PER_POINT, trimmed_mean

TOO_FEW_SLOTS = "too_few_slots"
ALL_SLOTS_MASKED = "all_slots_masked"
UNMASKED = (False,) * NUM_SLOTS
_RECORDS_AT_ONCE = 8192  # whose scores stay in the cache
_NULL = NO_SCORE / UNITS_PER_POINT  # becomes NO_SCORE when it is counted as a score is


def score_ratings(
    ratings: pa.Table,
    *,
    trim_fraction: float,
    min_slots: int,
    is_masked: Sequence[bool] = UNMASKED,
) -> pa.Table:
    """Returns one RECORD_SCORE_SCHEMA row per rating, in order.

    `ratings` has record_id, scores and status; the scores of masked slots do not count. A record
    without a score says why: the judge's status where it gave none at all, else all_slots_masked or
    too_few_slots. Raises ValueError for a score outside 0-10.
    """
    slots = ratings["scores"].combine_chunks().flatten()
    wanted = [slot for slot in range(NUM_SLOTS) if not is_masked[slot]]
    mean_R = np.zeros(ratings.num_rows, np.float32)
    has_mean_R = np.zeros(ratings.num_rows, np.bool_)
    for start in range(0, ratings.num_rows, _RECORDS_AT_ONCE):
        own = slice(start, start + _RECORDS_AT_ONCE)
        units_AR = _units(slots.slice(start * NUM_SLOTS, _RECORDS_AT_ONCE * NUM_SLOTS), wanted)
        if wanted:
            mean_R[own], has_mean_R[own] = trimmed_mean(
                units_AR, trim_fraction=trim_fraction, min_slots=min_slots
            )
    too_little = TOO_FEW_SLOTS if wanted else ALL_SLOTS_MASKED
    return pa.Table.from_arrays(
        [
            ratings["record_id"].combine_chunks(),
            pa.array(mean_R, pa.float32(), mask=~has_mean_R),
            _reasons(ratings, has_mean_R, too_little),
        ],
        schema=RECORD_SCORE_SCHEMA,
    )


def _units(slots: pa.Array, wanted: Sequence[int]) -> list[npt.NDArray[np.uint16]]:
    """Returns the wanted slots of records as columns of thousandths, NO_SCORE where there is none.

    All slots are checked, wanted or not.
    """
    points = pc.fill_null(slots, pa.scalar(_NULL, pa.float32())).to_numpy(zero_copy_only=False)
    is_score = (points >= 0) & (points <= 10)
    if np.count_nonzero(is_score) != len(slots) - slots.null_count:
        is_given = pc.is_valid(slots).to_numpy(zero_copy_only=False)
        wrong = points[is_given & ~is_score][0]
        raise ValueError(f"a slot's score is {wrong}; expected 0-10, or null where there is none")
    points_RA = points.reshape(-1, NUM_SLOTS)
    counted = np.empty(len(points_RA), np.float64)  # in float32 a product may round to a half
    columns = []
    for slot in wanted:
        np.multiply(points_RA[:, slot], float(UNITS_PER_POINT), out=counted, dtype=np.float64)
        columns.append(np.rint(counted, out=counted).astype(np.uint16))
    return columns


def _reasons(ratings: pa.Table, has_mean_R: npt.NDArray[np.bool_], too_little: str) -> pa.Array:
    """Returns why records have no mean, null where they have one."""
    without = np.flatnonzero(~has_mean_R)
    if not len(without):
        return pa.nulls(len(has_mean_R), pa.string())
    those = ratings.select(["scores", "status"]).take(without)
    slots = those["scores"].combine_chunks().flatten()
    is_given = pc.is_valid(slots).to_numpy(zero_copy_only=False).reshape(-1, NUM_SLOTS)
    # A judge that gave nothing says why in its status; otherwise too little of it counts.
    says_why = pc.and_(pa.array(~is_given.any(axis=1)), pc.not_equal(those["status"], "ok"))
    reasons = pc.if_else(says_why, those["status"], too_little).combine_chunks()
    if len(without) == len(has_mean_R):
        return reasons
    places = np.cumsum(~has_mean_R) - 1
    return reasons.take(pa.array(places, mask=has_mean_R))
