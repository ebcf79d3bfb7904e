from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.distill.packing import first_fit

_SIZES = st.lists(st.integers(1, 20), max_size=60)


def _first_fit_by_scanning(sizes: list[int], capacity: int) -> list[int]:
    room: list[int] = []
    bins = []
    for size in sizes:
        fitting = [number for number, left in enumerate(room) if left >= size]
        if not fitting:
            room.append(capacity)
            fitting = [len(room) - 1]
        room[fitting[0]] -= size
        bins.append(fitting[0])
    return bins


@given(_SIZES, st.integers(20, 50))
def test_first_fit_puts_each_size_where_a_scan_would(sizes: list[int], capacity: int) -> None:
    assert first_fit(sizes, capacity).tolist() == _first_fit_by_scanning(sizes, capacity)


@given(_SIZES.filter(bool), st.integers(20, 50))
def test_first_fit_decreasing_never_overfills_and_needs_few_bins(
    sizes: list[int], capacity: int
) -> None:
    sizes = sorted(sizes, reverse=True)
    filled: Counter[int] = Counter()
    for size, number in zip(sizes, first_fit(sizes, capacity).tolist(), strict=True):
        filled[number] += size
    assert max(filled.values()) <= capacity
    assert len(filled) <= 11 / 9 * -(-sum(sizes) // capacity) * 2  # the optimum is unknown here
    assert sorted(filled) == list(range(len(filled)))


@pytest.mark.parametrize("sizes", [[0, 3], [11, 2]])
def test_first_fit_size_that_no_bin_holds_is_refused(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match=r"must be in 1\.\.10"):
        first_fit(sizes, 10)
