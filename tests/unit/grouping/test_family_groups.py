from __future__ import annotations

import dataclasses
from math import cos, radians, sin
from typing import Any

import numpy as np
import pytest

from mira_megatron.grouping.family_groups import FamilyGroups, group_family
from mira_megatron.grouping.group import GroupConfig
from mira_megatron.grouping.unit_vectors import Floats

CONFIG = GroupConfig(
    by="similarity", records_per_source=10, min_silhouette=0.15, min_cosine=0.65, num_resamples=4
)


def records_at(degrees: float) -> Floats:
    """Three records around one direction of a plane."""
    angles = [radians(degrees + step) for step in (-1, 0, 1)]
    return np.array([[cos(angle), sin(angle)] for angle in angles], np.float32)


def grouped(
    angles: dict[str, float],
    *,
    pins: dict[str, str] | None = None,
    family: str = "text",
    **changes: Any,
) -> FamilyGroups:
    records = {source: records_at(angle) for source, angle in angles.items()}
    config = dataclasses.replace(CONFIG, **changes)
    return group_family(family, records, pins=pins or {}, config=config, seed=1)


def groups(found: FamilyGroups) -> dict[str, tuple[str, tuple[str, ...]]]:
    return {group.name: (group.method, group.sources) for group in found.groups}


def test_sources_are_grouped_by_similarity_and_named_after_the_most_central() -> None:
    found = grouped({"wiki": 10, "books": 0, "news": 22, "code": 120, "tests": 125})
    assert groups(found) == {
        "text-code": ("similarity", ("code", "tests")),
        "text-wiki": ("similarity", ("books", "news", "wiki")),
    }
    assert found.stability == 1.0


def test_groups_do_not_depend_on_the_order_of_sources() -> None:
    angles = {"wiki": 10.0, "books": 0.0, "news": 20.0, "code": 120.0, "tests": 125.0}
    turned = dict(reversed(angles.items()))
    assert groups(grouped(angles)) == groups(grouped(turned))


@pytest.mark.parametrize("angle", [1, 7, 20, 33])
def test_two_sources_are_equally_central_so_the_first_names_them(angle: float) -> None:
    # Equal but for rounding, which must not decide a name.
    assert list(groups(grouped({"b": 0, "a": angle}))) == ["text-a"]
    assert list(groups(grouped({"b": angle, "a": 0}))) == ["text-a"]


def test_pinned_sources_keep_their_group_and_the_others_are_clustered() -> None:
    found = grouped({"a": 0, "b": 5, "c": 90, "d": 95}, pins={"a": "text-first", "c": "text-first"})
    assert groups(found) == {
        "text-b": ("similarity", ("b",)),
        "text-d": ("similarity", ("d",)),
        "text-first": ("pinned", ("a", "c")),
    }
    assert found.clustered == ("b", "d")


def test_family_of_pinned_sources_is_not_clustered() -> None:
    found = grouped({"a": 0, "b": 5}, pins={"a": "text-x", "b": "text-y"})
    assert sorted(groups(found)) == ["text-x", "text-y"]
    assert (found.partition, found.stability, found.clustered) == (None, None, ())


def test_made_name_gives_way_to_a_pinned_one() -> None:
    found = grouped({"a": 0, "b": 90}, pins={"b": "text-a"})
    assert groups(found) == {"text-a": ("pinned", ("b",)), "text-a-2": ("similarity", ("a",))}


def test_sources_can_be_grouped_by_family_or_each_alone() -> None:
    angles = {"a": 0.0, "b": 90.0, "c": 180.0}
    pins = {"c": "text-c"}
    by_family = grouped(angles, pins=pins, by="family")
    assert groups(by_family) == {"text": ("family", ("a", "b")), "text-c": ("pinned", ("c",))}
    by_source = grouped(angles, pins=pins, by="source")
    assert sorted(groups(by_source)) == ["text-a", "text-b", "text-c"]
    assert by_source.partition is None


def test_groups_are_named_with_dashes_and_never_like_another_familys() -> None:
    assert sorted(groups(grouped({"math": 0}, family="qa_with_think"))) == ["qa-with-think-math"]
    assert sorted(groups(grouped({"with-think-math": 0}, family="qa"))) == [
        "qa-source-with-think-math"
    ]


def test_number_of_groups_is_the_familys_own() -> None:
    angles = {"a": 0.0, "b": 10.0}
    assert len(grouped(angles, num_groups={"text": 2, "qa": 1}).groups) == 2
    assert len(grouped(angles, num_groups={"text": None, "qa": 2}).groups) == 1


def test_more_groups_than_unpinned_sources_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"group.num_groups.text: 1 sources cannot make 2"
    ) as error:
        grouped({"a": 0, "b": 90}, pins={"b": "text-x"}, num_groups={"text": 2})
    assert "(a; pinned ones do not count)" in str(error.value)


def test_stability_is_not_measured_for_one_source_or_no_resamples() -> None:
    assert grouped({"a": 0}).stability is None
    assert grouped({"a": 0, "b": 90}, num_resamples=0).stability is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"by": "topic"}, "by='topic' must be one of similarity, family, source"),
        ({"records_per_source": 0}, "records_per_source=0 must be at least 1"),
        ({"num_resamples": -1}, "num_resamples=-1 must not be negative"),
        ({"min_cosine": 1.5}, r"min_cosine=1.5 must be in \[-1, 1\]"),
        ({"num_groups": {"texts": 2}}, "no family 'texts'. Did you mean 'text'"),
        ({"num_groups": {"text": 0}}, "num_groups.text=0 must be at least 1"),
        ({"num_groups": {"text": 2}, "by": "source"}, "goes with by=similarity"),
    ],
)
def test_group_setting_that_is_wrong_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **settings)
