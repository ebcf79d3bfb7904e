from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mira_megatron.eval.statistics.intervals import (
    clustered_interval,
    clustered_standard_error,
    standard_error,
    t_interval,
    wilson,
)

SCORES = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=2, max_size=40)


@pytest.mark.parametrize(
    ("num_right", "num_tasks", "low", "high"),
    [
        (109, 300, 31.1, 41.9),
        (37, 148, 18.7, 32.5),
        (336, 378, 85.3, 91.7),
        (1016, 1034, 97.3, 98.9),
    ],
)
def test_wilson_gives_the_intervals_of_the_published_scores(
    num_right: int, num_tasks: int, low: float, high: float
) -> None:
    interval = wilson(num_right / num_tasks, num_tasks).scaled(100)
    assert (round(interval.low, 1), round(interval.high, 1)) == (low, high)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_scipy_s(counts: tuple[int, int]) -> None:
    num_right, num_tasks = counts
    found = wilson(num_right / num_tasks, num_tasks)
    other = stats.binomtest(num_right, num_tasks).proportion_ci(0.95, method="wilson")
    assert (found.low, found.high) == pytest.approx((other.low, other.high), abs=1e-9)
    assert 0 <= found.low <= num_right / num_tasks <= found.high <= 1


def test_wilson_without_a_draw_is_refused() -> None:
    with pytest.raises(ValueError, match="no draws"):
        wilson(0.5, 0)


@given(SCORES)
def test_standard_errors_of_single_tasks_are_scipy_s(scores: list[float]) -> None:
    error = stats.sem(scores)
    names = [str(number) for number in range(len(scores))]
    assert standard_error(scores) == pytest.approx(error, abs=1e-12)
    assert clustered_standard_error(scores, names) == pytest.approx(error, abs=1e-12)


@given(SCORES, st.integers(2, 5))
def test_a_task_asked_several_times_is_still_one_draw(scores: list[float], times: int) -> None:
    names = [str(number) for number in range(len(scores))]
    repeated = clustered_standard_error(scores * times, names * times)
    assert repeated == pytest.approx(standard_error(scores), abs=1e-12)


def test_clustered_error_by_hand() -> None:
    # Deviations from 0.5 sum to 1, -0.5 and -0.5: sqrt(1.5 x 3/2) / 6.
    scores, clusters = [1.0, 1, 0, 0.5, 0, 0.5], ["a", "a", "b", "b", "c", "c"]
    assert clustered_standard_error(scores, clusters) == pytest.approx(1.5 / 6)


def test_clustered_interval_of_independent_tasks_is_near_wilson_s() -> None:
    scores = [1.0] * 109 + [0.0] * 191
    found = clustered_interval(scores, [str(number) for number in range(300)])
    plain = wilson(109 / 300, 300)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high), abs=0.001)
    assert found.low < plain.low < plain.high < found.high  # Student's quantile is wider


def test_clustered_interval_of_alike_tasks_is_of_the_clusters() -> None:
    scores = [1.0, 1, 1, 1, 0, 0, 0, 0] * 5
    clusters = ["a", "a", "b", "b", "c", "c", "d", "d"] * 5
    clusters = [f"{name}{number // 8}" for number, name in enumerate(clusters)]
    alone = clustered_interval(scores[::2], clusters[::2])
    assert clustered_interval(scores, clusters) == alone


@pytest.mark.parametrize("score", [0.0, 1.0])
def test_clustered_interval_at_the_end_is_as_wide_as_the_clusters_allow(score: float) -> None:
    found = clustered_interval([score] * 40, [str(number % 4) for number in range(40)])
    assert found is not None
    assert found.low <= score <= found.high
    assert found.high - found.low > 0.6  # four draws say little


def test_one_cluster_has_no_interval() -> None:
    assert clustered_interval([0.0, 1.0], ["a", "a"]) is None
    assert clustered_standard_error([0.0, 1.0], ["a", "a"]) is None
    assert standard_error([1.0]) is None


def test_t_interval_is_scipy_s() -> None:
    found = t_interval(0.1, 0.02, 11)
    expected = stats.t.interval(0.95, 10, loc=0.1, scale=0.02)
    assert (found.low, found.high) == pytest.approx(expected)
