from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mira_megatron.eval.statistics.intervals import clustered_standard_error
from mira_megatron.eval.statistics.resampling import (
    ClusteredScores,
    Resampling,
    percentile_interval,
    resampled_error,
    resampled_scores,
)

MANY = Resampling(num_resamples=20_000, seed=7)
FEW = Resampling(num_resamples=200, seed=7)


def scored(scores: list[float], clusters: list[str], stratum: str = "s") -> ClusteredScores:
    return ClusteredScores(stratum=stratum, scores=scores, clusters=clusters)


def test_resampled_scores_are_those_of_every_way_to_draw_clusters() -> None:
    # Three clusters of unequal size: 27 equally likely draws, each deviation widened by sqrt(3/2).
    scores, clusters = [1.0, 1, 0, 0, 0, 0.5], ["a", "a", "b", "b", "b", "c"]
    sums, sizes = {"a": 2.0, "b": 0.0, "c": 0.5}, {"a": 2, "b": 3, "c": 1}
    mean = 2.5 / 6
    exact = [
        mean
        + 1.5**0.5 * (sum(map(sums.__getitem__, draw)) / sum(map(sizes.__getitem__, draw)) - mean)
        for draw in itertools.product("abc", repeat=3)
    ]
    found = resampled_scores({("x", "m"): scored(scores, clusters)}, MANY)["x", "m"]
    assert set(np.round(found, 9)) == set(np.round(exact, 9))
    assert found.mean() == pytest.approx(np.mean(exact), abs=0.01)  # four standard errors
    assert found.std() == pytest.approx(np.std(exact), rel=0.03)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 1), min_size=20, max_size=60), st.integers(5, 12))
def test_resampled_error_is_near_the_clustered_one(bits: list[int], num_clusters: int) -> None:
    size = len(bits) // num_clusters * num_clusters  # clusters of one size: the same estimator
    scores = [float(bit) for bit in bits[:size]]
    clusters = [str(number % num_clusters) for number in range(size)]
    found = resampled_scores({("x", "m"): scored(scores, clusters)}, MANY)["x", "m"]
    expected = clustered_standard_error(scores, clusters)
    assert resampled_error(found) == pytest.approx(expected, rel=0.03, abs=1e-12)


def test_what_shares_clusters_is_drawn_together() -> None:
    scores, clusters = [1.0, 0, 0, 1, 1, 0], list("abcdef")
    found = resampled_scores(
        {
            ("x", "m"): scored(scores, clusters),
            ("y", "m"): scored(scores[::-1], clusters[::-1]),  # the same in another order
            ("x", "hard"): scored(scores[:3], clusters[:3]),
            ("x", "other"): scored(scores, clusters, stratum="another"),
        },
        MANY,
    )
    assert np.array_equal(found["x", "m"], found["y", "m"])
    both = np.corrcoef(found["x", "m"], np.nan_to_num(found["x", "hard"]))[0, 1]
    assert both > 0.3
    assert abs(np.corrcoef(found["x", "m"], found["x", "other"])[0, 1]) < 0.05


def test_a_stratum_is_drawn_alike_whatever_else_there_is() -> None:
    one = {("x", "m"): scored([1.0, 0, 1], list("abc"))}
    more = {("x", "n"): scored([1.0, 1, 0, 0], list("abcd"), stratum="t"), **one}
    assert np.array_equal(
        resampled_scores(one, FEW)["x", "m"], resampled_scores(more, FEW)["x", "m"]
    )
    other = Resampling(num_resamples=200, seed=8)
    assert not np.array_equal(
        resampled_scores(one, FEW)["x", "m"], resampled_scores(one, other)["x", "m"]
    )


def test_more_clusters_than_are_drawn_at_once_give_as_many_resamples() -> None:
    many = scored([1.0, 0.0] * 10_000, [str(number) for number in range(20_000)])
    found = resampled_scores({("x", "m"): many}, FEW)["x", "m"]
    assert found.shape == (200,)
    assert found.mean() == pytest.approx(0.5, abs=0.002)


def test_a_benchmark_that_resamples_often_miss_has_no_interval() -> None:
    found = resampled_scores(
        {
            ("x", "m"): scored([1.0] * 10 + [0.0] * 10, [str(number) for number in range(20)]),
            ("x", "one"): scored([1.0], ["3"]),
        },
        MANY,
    )
    assert np.isnan(found["x", "one"]).mean() == pytest.approx((19 / 20) ** 20, abs=0.02)
    assert percentile_interval(found["x", "one"]) is None
    assert resampled_error(found["x", "one"]) is None
    interval = percentile_interval(found["x", "m"])
    assert interval is not None
    assert 0.2 < interval.low < 0.5 < interval.high < 0.8


def test_unusable_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="num_resamples=10"):
        Resampling(num_resamples=10, seed=0)
    with pytest.raises(ValueError, match="2 scores and 1 clusters"):
        scored([1.0, 0.0], ["a"])
