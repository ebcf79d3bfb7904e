from __future__ import annotations

import dataclasses
from math import cos, radians, sin

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mira_megatron.grouping.clustering import (
    ALIKE,
    ALONE,
    GIVEN,
    SILHOUETTE,
    UNLIKE,
    ClusterRules,
    Partition,
    partition,
    stability,
)
from mira_megatron.grouping.unit_vectors import Floats

RULES = ClusterRules(num_clusters=None, min_silhouette=0.15, min_cosine=0.65, seed=7)


def at(*degrees: float) -> Floats:
    """Unit vectors of a plane at these angles."""
    return np.array([[cos(radians(a)), sin(radians(a))] for a in degrees], np.float32)


def rules(**changes: float | int | None) -> ClusterRules:
    return dataclasses.replace(RULES, **changes)  # type: ignore[arg-type]


def test_silhouette_chooses_how_many_clusters() -> None:
    found = partition(at(0, 90, 2, 92, 180, 4), RULES)
    assert found.labels == (0, 1, 0, 1, 2, 0)
    assert found.chosen_by == SILHOUETTE
    assert max(found.silhouettes, key=lambda k: found.silhouettes[k]) == 3
    assert sorted(found.silhouettes) == [2, 3, 4, 5]


def test_silhouette_is_that_of_cosine_distances() -> None:
    # Distances: 0.5 between the first two, 2 and 1.5 to the third. Their silhouettes are
    # (2 - 0.5) / 2 and (1.5 - 0.5) / 1.5; that of a cluster of one is 0.
    found = partition(at(0, 60, 180), RULES)
    assert found.labels == (0, 0, 1)
    assert found.silhouettes == {2: pytest.approx((0.75 + 2 / 3 + 0) / 3)}
    assert found.mean_cosine == pytest.approx((0.5 - 1 - 0.5) / 3)


def test_without_a_good_silhouette_alike_sources_are_one_cluster() -> None:
    found = partition(at(0, 10, 20), rules(min_silhouette=0.9))
    assert (found.labels, found.chosen_by) == ((0, 0, 0), ALIKE)


def test_without_a_good_silhouette_unlike_sources_are_apart() -> None:
    found = partition(at(0, 90, 180), rules(min_silhouette=0.9))
    assert (found.labels, found.chosen_by) == ((0, 1, 2), UNLIKE)


@pytest.mark.parametrize(
    ("degrees", "labels", "chosen_by"), [(40, (0, 0), ALIKE), (60, (0, 1), UNLIKE)]
)
def test_two_sources_are_one_cluster_if_their_cosine_is_high(
    degrees: float, labels: tuple[int, int], chosen_by: str
) -> None:
    found = partition(at(0, degrees), RULES)  # cosines 0.77 and 0.5
    assert (found.labels, found.chosen_by, found.silhouettes) == (labels, chosen_by, {})


def test_single_source_is_a_cluster() -> None:
    found = partition(at(30), RULES)
    assert (found.labels, found.chosen_by, found.mean_cosine) == ((0,), ALONE, None)


@pytest.mark.parametrize(
    ("wanted", "labels"), [(1, (0, 0, 0, 0)), (2, (0, 0, 1, 1)), (4, (0, 1, 2, 3))]
)
def test_number_of_clusters_can_be_given(wanted: int, labels: tuple[int, ...]) -> None:
    found = partition(at(0, 20, 100, 130), rules(num_clusters=wanted))
    assert (found.labels, found.chosen_by) == (labels, GIVEN)
    assert sorted(found.silhouettes) == [2, 3]


@pytest.mark.parametrize("wanted", [0, 4])
def test_more_clusters_than_sources_are_refused(wanted: int) -> None:
    with pytest.raises(ValueError, match=f"3 sources cannot make {wanted} groups"):
        partition(at(0, 1, 2), rules(num_clusters=wanted))


def test_equal_sources_are_never_parted() -> None:
    found = partition(at(0, 0, 0, 90, 90), RULES)
    assert found.labels == (0, 0, 0, 1, 1)
    assert found.silhouettes == {2: 1.0}
    assert partition(at(0, 0, 0), RULES).labels == (0, 0, 0)


@settings(max_examples=20)  # each starts KMeans a few hundred times
@given(st.lists(st.integers(0, 359), min_size=1, max_size=6))
def test_clusters_are_numbered_in_order_of_appearance(degrees: list[int]) -> None:
    found = partition(at(*degrees), RULES)
    assert len(found.labels) == len(degrees)
    assert list(dict.fromkeys(found.labels)) == list(range(len(set(found.labels))))


def test_well_parted_sources_are_stable() -> None:
    records = [at(*(angle + step for step in range(10))) for angle in (0, 5, 120, 125)]
    chosen = partition(at(5, 10, 125, 130), RULES)
    assert chosen.labels == (0, 0, 1, 1)
    assert stability(records, chosen, RULES, num_resamples=5) == 1.0


def test_stability_is_the_adjusted_rand_index_with_the_chosen_clusters() -> None:
    records = [at(*(angle + step for step in range(10))) for angle in (0, 5, 120, 125)]
    crossed = Partition(labels=(0, 1, 0, 1), chosen_by=GIVEN, silhouettes={}, mean_cosine=0.0)
    # Every resample pairs what the chosen clusters part: no pair of 2 + 2 agrees, 1 was expected.
    assert stability(records, crossed, RULES, num_resamples=3) == pytest.approx(-0.5)


def test_sources_that_hang_on_few_records_are_less_stable() -> None:
    wide = [at(0, 170), at(20, 150), at(85, 95)]
    chosen = partition(np.stack([rows.mean(axis=0) for rows in wide]), RULES)
    assert stability(wide, chosen, RULES, num_resamples=30) < 0.9
