from __future__ import annotations

import itertools

import numpy as np
import pytest

from mira_megatron.eval.statistics.paired import flipped_p, mcnemar_p
from mira_megatron.eval.statistics.resampling import ClusteredScores, Resampling
from mira_megatron.eval.statistics.sign_flips import flipped_differences

MANY = Resampling(num_resamples=40_000, seed=3)


def scored(scores: list[float], clusters: list[str], stratum: str = "s") -> ClusteredScores:
    return ClusteredScores(stratum=stratum, scores=scores, clusters=clusters)


def test_flipped_differences_are_those_of_every_choice_of_signs() -> None:
    clusters = ["a", "a", "b", "c", "c"]
    first, second = [0.0, 0, 1, 0, 1], [1.0, 1, 0, 1, 1]
    by_cluster = (2 / 5, -1 / 5, 1 / 5)
    exact = [
        sum(sign * each for sign, each in zip(signs, by_cluster, strict=True))
        for signs in itertools.product((1, -1), repeat=3)
    ]
    found = flipped_differences(
        {"m": scored(first, clusters)}, {"m": scored(second, clusters)}, MANY
    )["m"]
    assert set(np.round(found, 9)) == set(np.round(exact, 9))
    expected = np.mean(np.abs(exact) >= 0.4 - 1e-9)
    assert flipped_p(0.4, found) == pytest.approx(expected, abs=0.01)  # three standard errors


@pytest.mark.parametrize(("gained", "lost"), [(9, 2), (4, 4), (12, 3)])
def test_single_tasks_give_mcnemar_s_p(gained: int, lost: int) -> None:
    first = [0.0] * gained + [1.0] * lost + [1.0] * 10
    second = [1.0] * gained + [0.0] * lost + [1.0] * 10
    names = [str(number) for number in range(len(first))]
    found = flipped_differences({"m": scored(first, names)}, {"m": scored(second, names)}, MANY)
    p = flipped_p((gained - lost) / len(first), found["m"])
    assert p == pytest.approx(mcnemar_p(gained, lost), abs=0.01)  # four standard errors


def test_benchmarks_of_one_cluster_get_one_sign() -> None:
    names = list("abcdefgh")
    gains = [0.0] * 8, [1.0, 1, 0, 1, 0, 1, 1, 0]
    found = flipped_differences(
        {"m": scored(gains[0], names), "n": scored(gains[1], names)},
        {"m": scored(gains[1], names), "n": scored(gains[0], names)},
        MANY,
    )
    assert np.abs(found["m"]).max() > 0
    assert np.array_equal(found["m"], -found["n"])


def test_what_one_of_the_two_lacks_is_left_out() -> None:
    one = {"m": scored([1.0, 0.0], ["a", "b"])}
    assert set(flipped_differences({**one, "n": one["m"]}, one, MANY)) == {"m"}


def test_more_clusters_than_are_drawn_at_once_give_as_many_draws() -> None:
    names = [str(number) for number in range(20_000)]
    few = Resampling(num_resamples=150, seed=3)
    found = flipped_differences(
        {"m": scored([0.0] * 20_000, names)}, {"m": scored([1.0] * 20_000, names)}, few
    )["m"]
    assert found.shape == (150,)
    assert np.abs(found).max() < 0.05
