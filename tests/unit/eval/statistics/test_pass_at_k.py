from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.eval.statistics.pass_at_k import pass_at_k


@given(st.integers(1, 8).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))), st.data())
def test_pass_at_k_is_the_share_of_draws_with_a_right_sample(
    sizes: tuple[int, int], data: st.DataObject
) -> None:
    num_samples, num_right = sizes
    k = data.draw(st.integers(1, num_samples))
    draws = list(combinations(range(num_samples), k))
    share = sum(min(draw) < num_right for draw in draws) / len(draws)
    assert pass_at_k(num_samples, num_right, k) == pytest.approx(share, abs=1e-12)


def test_pass_at_1_is_the_share_of_right_samples() -> None:
    assert pass_at_k(8, 3, 1) == pytest.approx(3 / 8)


def test_pass_at_k_of_large_numbers_needs_no_large_binomial() -> None:
    assert 0 < pass_at_k(100_000, 1, 100) == pytest.approx(0.001, rel=1e-6)


@pytest.mark.parametrize(("n", "c", "k"), [(3, 1, 0), (3, 1, 4), (3, 4, 1), (3, -1, 1)])
def test_pass_at_k_outside_its_range_is_refused(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match="must be in"):
        pass_at_k(n, c, k)
