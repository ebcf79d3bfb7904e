from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.planning.price import Rates, Total, gpu_hours, money, total_of, weighted

TOKENS = st.lists(st.integers(1, 100_000).map(float), min_size=2, max_size=40)


def test_total_of_everything_is_the_sum_without_an_interval() -> None:
    assert total_of([1, 2, 6], 3) == Total(value=9, half_width=0.0)


def test_total_of_one_of_many_has_no_known_interval() -> None:
    total = total_of([5], 10)
    assert (total.value, total.half_width, total.low, total.high) == (50, None, None, None)


def test_total_of_half_has_the_textbook_interval() -> None:
    # Mean 3, s = 2: t(0.975, df=1) = 12.706; s / sqrt(2) * sqrt(1 - 2/4) = 1; times 4 records.
    total = total_of([3 - math.sqrt(2), 3 + math.sqrt(2)], 4)
    assert total.value == pytest.approx(12)
    assert total.half_width == pytest.approx(4 * 12.706, rel=1e-4)
    assert total.low == 0.0  # no job costs less than nothing


def test_interval_holds_the_truth_in_nineteen_of_twenty_samples() -> None:
    generator = random.Random(1)
    population = [generator.gauss(1000, 200) for _ in range(2000)]
    truth = sum(population)
    totals = [total_of(generator.sample(population, 100), 2000) for _ in range(400)]
    held = sum(abs(total.value - truth) <= (total.half_width or 0) for total in totals)
    assert 365 <= held <= 395  # 380 expected, standard deviation 4.4


@given(TOKENS, st.integers(1, 1000))
def test_interval_narrows_as_more_are_looked_at(sample: list[float], more: int) -> None:
    num_records = 4 * len(sample) + more
    fewer, doubled = (total_of(each, num_records) for each in (sample, sample * 2))
    assert fewer.value == pytest.approx(doubled.value)
    assert (doubled.half_width or 0) <= (fewer.half_width or 0)


@given(TOKENS, st.integers(40, 1000), st.floats(0.1, 1000))
def test_weight_scales_a_total_and_its_interval(
    sample: list[float], num_records: int, weight: float
) -> None:
    total = total_of(sample, num_records)
    scaled = weighted([(weight, total)])
    assert scaled.value == pytest.approx(weight * total.value)
    assert scaled.half_width == pytest.approx(weight * (total.half_width or 0))


def test_independent_intervals_add_as_squares() -> None:
    total = weighted([(1, Total(value=10, half_width=3)), (2, Total(value=5, half_width=2))])
    assert total == Total(value=20, half_width=5)


def test_a_sum_with_an_unknown_or_upper_part_says_so() -> None:
    known, unknown = Total(value=1, half_width=1), Total(value=1, half_width=None, is_most=True)
    assert weighted([(1, known), (1, unknown)]) == Total(value=2, half_width=None, is_most=True)


def test_gpu_hours_are_reading_and_writing_one_after_another() -> None:
    rates = Rates(prompt_tokens_per_second=1000, output_tokens_per_second=10)
    hours = gpu_hours(Total(value=3.6e6), Total(value=36_000), rates)
    assert hours.value == pytest.approx(1 + 1)


def test_money_is_priced_per_million_tokens() -> None:
    cost = money(
        Total(value=2e6, half_width=1e6),
        Total(value=1e6),
        per_million_prompt=0.5,
        per_million_output=3,
    )
    assert cost.value == pytest.approx(4)
    assert cost.half_width == pytest.approx(0.5)
