from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.records import NUM_SLOTS
from mira_megatron.reliability.trimmed_mean import NO_SCORE, sorting_network, trimmed_mean

Slots = list[int | None]

# One record: thousandths of a point per slot, None where the judge gave no score.
SLOTS = st.lists(st.none() | st.integers(0, 10_000), min_size=1, max_size=NUM_SLOTS)
PERCENT_TRIMMED = st.integers(0, 49)


def columns(records: Sequence[Sequence[float | None]]) -> list[npt.NDArray[np.uint16]]:
    """Scores in points, record by record, as the columns of thousandths that are averaged."""
    units = [
        [NO_SCORE if score is None else round(score * 1000) for score in record]
        for record in records
    ]
    return list(np.array(units, np.uint16).T)


def mean_of(
    scores: Sequence[float | None], *, trim_fraction: float = 0.0, min_slots: int = 1
) -> float | None:
    """The trimmed mean of one record, None where it has none."""
    mean_R, has_mean_R = trimmed_mean(
        columns([scores]), trim_fraction=trim_fraction, min_slots=min_slots
    )
    return float(mean_R[0]) if has_mean_R[0] else None


def points(slots: Slots) -> list[float | None]:
    return [None if slot is None else slot / 1000 for slot in slots]


def exact_mean(slots: Slots, percent_trimmed: int) -> Fraction | None:
    """The definition, in exact arithmetic."""
    usable = sorted(slot for slot in slots if slot is not None)
    cut = len(usable) * percent_trimmed // 100
    left = usable[cut : len(usable) - cut]
    return Fraction(sum(left), 1000 * len(left)) if left else None


def nearest_float32(exact: Fraction) -> float:
    """`exact` rounded once: the closest of the three float32 around its float64."""
    middle = np.float32(float(exact))
    around = [middle, np.nextafter(middle, np.float32(-99)), np.nextafter(middle, np.float32(99))]
    return min((float(value) for value in around), key=lambda value: abs(Fraction(value) - exact))


def test_trimmed_mean_cuts_one_value_from_each_end() -> None:
    assert mean_of([0, 4, 5, 6, 10], trim_fraction=0.2) == 5.0


def test_trimmed_mean_cuts_nothing_where_the_fraction_is_less_than_one_value() -> None:
    assert mean_of([0, 4, 5, 10], trim_fraction=0.2) == 4.75


def test_trimmed_mean_counts_only_the_slots_that_have_a_score() -> None:
    assert mean_of([None, 0, 4, None, 5, 6, 10], trim_fraction=0.2) == 5.0


def test_trimmed_mean_cuts_what_the_decimal_fraction_says() -> None:
    # 0.29 * 100 is 28.999999999999996 in binary: 29 of the 100 scores go at each end.
    scores = [10] * 29 + [5] * 42 + [0] * 29
    assert mean_of(scores, trim_fraction=0.29) == 5.0


def test_trimmed_mean_of_a_record_without_any_score_is_missing() -> None:
    assert mean_of([None, None, None]) is None


@pytest.mark.parametrize(("min_slots", "expected"), [(1, 4.0), (2, 4.0), (3, None)])
def test_trimmed_mean_needs_min_slots_scores(min_slots: int, expected: float | None) -> None:
    assert mean_of([3, None, 5], min_slots=min_slots) == expected


def test_trimmed_mean_of_no_records_is_empty() -> None:
    mean_R, has_mean_R = trimmed_mean(
        [np.empty(0, np.uint16)] * NUM_SLOTS, trim_fraction=0.1, min_slots=1
    )
    assert mean_R.shape == has_mean_R.shape == (0,)


@pytest.mark.parametrize("trim_fraction", [0.4999999999, math.nextafter(0.5, 0)])
def test_trimmed_mean_never_cuts_everything(trim_fraction: float) -> None:
    # Less than half of two scores is no whole score, so both stay.
    assert mean_of([4, 6], trim_fraction=trim_fraction) == 5.0


@given(slots=SLOTS, percent=PERCENT_TRIMMED)
def test_trimmed_mean_is_the_exact_mean_rounded_once(slots: Slots, percent: int) -> None:
    exact = exact_mean(slots, percent)
    expected = None if exact is None else nearest_float32(exact)
    assert mean_of(points(slots), trim_fraction=percent / 100) == expected


@given(slots=SLOTS, percent=PERCENT_TRIMMED, data=st.data())
def test_trimmed_mean_does_not_depend_on_the_order_of_slots(
    slots: Slots, percent: int, data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(slots))
    expected = mean_of(points(slots), trim_fraction=percent / 100)
    assert mean_of(points(shuffled), trim_fraction=percent / 100) == expected


@given(records=st.lists(SLOTS, min_size=1, max_size=8), min_slots=st.integers(1, NUM_SLOTS))
def test_trimmed_mean_of_a_record_does_not_depend_on_the_others(
    records: list[Slots], min_slots: int
) -> None:
    padded = [points([*slots, *[None] * (NUM_SLOTS - len(slots))]) for slots in records]
    mean_R, has_mean_R = trimmed_mean(columns(padded), trim_fraction=0.1, min_slots=min_slots)
    together = [
        mean if has_mean else None
        for mean, has_mean in zip(mean_R.tolist(), has_mean_R.tolist(), strict=True)
    ]
    assert together == [mean_of(r, trim_fraction=0.1, min_slots=min_slots) for r in padded]


def test_trimmed_mean_leaves_its_columns_as_they_were() -> None:
    given_AR = columns([[3, 1, 2], [None, 5, 4]])
    kept = [column.copy() for column in given_AR]
    trimmed_mean(given_AR, trim_fraction=0.1, min_slots=1)
    for column, before in zip(given_AR, kept, strict=True):
        np.testing.assert_array_equal(column, before)


@pytest.mark.parametrize("num_values", range(1, 17))
def test_sorting_network_orders_whatever_is_given(num_values: int) -> None:
    # A network that sorts all zeros and ones sorts everything (Knuth's zero-one principle).
    numbers = np.arange(2**num_values)
    places = [(numbers >> place) & 1 for place in range(num_values)]
    for low, high in sorting_network(num_values):
        places[low], places[high] = (
            np.minimum(places[low], places[high]),
            np.maximum(places[low], places[high]),
        )
    assert all((low <= high).all() for low, high in itertools.pairwise(places))
