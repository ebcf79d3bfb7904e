from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mira_megatron.eval.statistics.paired import flipped_p, holm, mcnemar_p, paired_interval


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_exact_binomial_test(num_gained: int, num_lost: int) -> None:
    total = num_gained + num_lost
    expected = stats.binomtest(num_gained, total, 0.5).pvalue if total else 1.0
    assert mcnemar_p(num_gained, num_lost) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("gained", "lost", "p"), [(26, 15, 0.117), (56, 45, 0.320), (0, 0, 1.0)])
def test_mcnemar_of_109_beside_120_of_300(gained: int, lost: int, p: float) -> None:
    assert mcnemar_p(gained, lost) == pytest.approx(p, abs=5e-4)


def test_mcnemar_of_more_changes_than_a_float_holds_is_no_overflow() -> None:
    assert 0 <= mcnemar_p(1140, 0) < 1e-300


def test_mcnemar_of_no_counts_is_refused() -> None:
    with pytest.raises(ValueError, match="expected counts"):
        mcnemar_p(-1, 2)


def test_paired_interval_by_hand() -> None:
    # b* = 4.5, c* = 0.5, n* = 62: 4 / 62 +- 1.96 sqrt(5 - 16/62) / 62.
    found = paired_interval(4, 0, 60)
    assert (found.low, found.high) == pytest.approx((-0.00432, 0.13336), abs=1e-5)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(60, 400))
def test_paired_interval_has_the_difference_in_it_and_the_mirrored_one_mirrored(
    gained: int, lost: int, total: int
) -> None:
    found, mirrored = paired_interval(gained, lost, total), paired_interval(lost, gained, total)
    assert found.low <= (gained - lost) / total <= found.high
    assert (found.low, found.high) == pytest.approx((-mirrored.high, -mirrored.low))


def test_paired_interval_of_more_changes_than_tasks_is_refused() -> None:
    with pytest.raises(ValueError, match="num_tasks=3"):
        paired_interval(2, 2, 3)


def test_flipped_p_counts_what_is_as_far_on_either_side() -> None:
    flipped = np.array([0.3, -0.3, 0.1, -0.2, 0.3 - 1e-12, 0.0, 0.0, 0.0, 0.0])
    assert flipped_p(0.3, flipped) == pytest.approx(4 / 10)
    assert flipped_p(-0.3, flipped) == pytest.approx(4 / 10)
    assert flipped_p(0.0, flipped) == 1.0


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_never_below_p_nor_above_bonferroni_and_keeps_the_order(ps: list[float]) -> None:
    adjusted = holm(ps)
    pairs = sorted(zip(ps, adjusted, strict=True))
    assert all(p <= each <= min(1.0, len(ps) * p) or each == 1.0 for p, each in pairs)
    assert [each for _, each in pairs] == sorted(adjusted)
    assert min(adjusted) == pytest.approx(min(1.0, len(ps) * min(ps)))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.001, 0.999))
def test_holm_rejects_what_stepping_down_rejects(ps: list[float], level: float) -> None:
    rejected = 0
    for rank, p in enumerate(sorted(ps)):
        if p * (len(ps) - rank) > level:
            break
        rejected += 1
    assert sum(each <= level for each in holm(ps)) == rejected
