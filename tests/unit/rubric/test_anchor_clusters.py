from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from anchor_material import CONFIG, every_topic, found, judgment
from hypothesis import given, settings
from hypothesis import strategies as st

from mira_megatron.records import NUM_SLOTS


def test_find_anchors_names_slots_by_cluster_size_largest_first() -> None:
    anchors = found(every_topic()).anchors
    assert [anchor.anchor_id for anchor in anchors] == [f"A{slot}" for slot in range(1, 16)]
    assert [anchor.name for anchor in anchors] == [f"name {topic:02}" for topic in range(15)]
    assert [anchor.cluster_size for anchor in anchors] == list(range(30, 0, -2))


def test_find_anchors_of_equal_sizes_go_by_the_text_of_their_medoids() -> None:
    rows = [judgment(topic, 0, 5.0) for topic in reversed(range(15))]
    assert [anchor.name for anchor in found(rows).anchors] == [f"name {t:02}" for t in range(15)]


def test_find_anchors_medoid_is_the_judgment_nearest_to_the_weighted_centre() -> None:
    # Said nine times, "words 2" pulls the centre to itself, although two others differ from it.
    said = [(1, "a"), (2, "b"), (3, "c"), *[(2, f"d{time}") for time in range(8)]]
    rows = [judgment(0, words, 7.0, record_id=record) for words, record in said]
    anchors = found([*rows, *every_topic()[30:]]).anchors
    (anchor,) = [anchor for anchor in anchors if anchor.name == "name 00"]
    assert anchor.medoid is not None
    assert (anchor.medoid.reason, anchor.medoid.record_id) == ("about 00 words 2", "b")
    assert (anchor.medoid.score, anchor.medoid.source, anchor.cluster_size) == (7.0, "s", 11)


def test_find_anchors_lists_the_other_names_of_a_cluster_most_first() -> None:
    more = [judgment(0, 0, 5.0, dimension=name) for name in ("rare", "often", "often")]
    first = found([*every_topic(), *more]).anchors[0]
    assert (first.name, first.aliases) == ("name 00", (("often", 2), ("rare", 1)))
    assert first.cluster_size == 33


def test_find_anchors_gives_references_to_the_largest_clusters_only() -> None:
    anchors = found(every_topic()).anchors
    assert [len(anchor.references) for anchor in anchors] == [1] * 12 + [0] * 3


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(), threads=st.sampled_from([1, 2, 3]))
def test_find_anchors_depends_on_neither_row_order_nor_threads(seed: int, threads: int) -> None:
    config = replace(CONFIG, num_resamples=2)
    rows = [
        judgment(topic, words, float(words), record_id=f"{topic}-{words}")
        for topic in range(20)
        for words in range(4)
    ]
    expected = found(rows, config=config)
    random.Random(seed).shuffle(rows)
    assert found(rows, config=config, threads=threads) == expected


def test_find_anchors_of_thoughts_has_five_of_each_part_in_blocks() -> None:
    # The parts' sizes differ: qa is said most, and still comes last.
    rows = [
        row
        for times, part in ((1, "think"), (2, "combined"), (3, "qa"))
        for row in every_topic(5, part=part) * times
    ]
    anchors = found(rows, family="qa_with_think").anchors
    assert [anchor.part for anchor in anchors] == ["think"] * 5 + ["combined"] * 5 + ["qa"] * 5
    assert [anchor.name for anchor in anchors] == [f"name {t:02}" for t in range(5)] * 3
    assert [anchor.cluster_size for anchor in anchors[:5]] == [30, 28, 26, 24, 22]
    # The three smallest of all clusters stand at the end of the first block.
    assert [slot for slot, one in enumerate(anchors, 1) if not one.references] == [3, 4, 5]


@pytest.mark.parametrize(
    ("rows", "family", "message"),
    [
        ([], "text", "group g: 0 distinct judgments, but 15 anchors need at least 15"),
        (every_topic(14), "text", "group g: 14 distinct judgments"),
        (every_topic(15, part="qa"), "qa_with_think", "part think: 0 distinct .* 5 anchors need"),
        (every_topic(), "qa", None),
    ],
)
def test_find_anchors_of_too_few_judgments_says_what_to_raise(
    rows: list[dict[str, Any]], family: str, message: str | None
) -> None:
    if message is None:
        assert len(found(rows, family=family).anchors) == NUM_SLOTS
        return
    with pytest.raises(ValueError, match=rf"{message}.*; or raise discover\.records_per_source"):
        found(rows, family=family)


def test_find_anchors_of_strings_with_equal_vectors_are_too_few() -> None:
    rows = [judgment(0, 0, 5.0, dimension=f"name {number}") for number in range(20)]
    with pytest.raises(ValueError, match="1 judgments that differ once embedded"):
        found(rows)


def _close_topics() -> list[dict[str, Any]]:
    """Topic 0 in two kinds, said often (cosine 0.99); topics 1 to 14, the last two only once.

    Fifteen clusters rather part the kinds than the two that were said once.
    """
    kinds = [judgment(0, 0, 5.0)] * 400 + [judgment(0, 1, 5.0, dimension="kind")] * 390
    others = [judgment(topic, 0, 5.0) for topic in range(1, 13) for _ in range(20)]
    return [*kinds, *others, judgment(13, 0, 5.0), judgment(14, 0, 5.0)]


def test_find_anchors_lists_near_duplicates_with_their_cosine() -> None:
    (pair,) = found(_close_topics()).near_duplicates
    assert pair.anchor_ids == ("A1", "A2")
    assert pair.names == ("name 00", "kind")
    assert pair.cosine == pytest.approx(1 / 1.01, abs=1e-4)  # (1, 0.1, 0) and (1, 0, 0.1)


def test_find_anchors_merged_unites_near_duplicates_and_still_fills_all_slots() -> None:
    merged = found(_close_topics(), config=replace(CONFIG, merge_near_duplicates=True))
    assert len(merged.anchors) == NUM_SLOTS
    assert merged.near_duplicates == ()
    first, *_, last = merged.anchors
    assert (first.name, first.aliases, first.cluster_size) == ("name 00", (("kind", 390),), 790)
    assert (last.name, last.cluster_size) == ("name 14", 1)


def test_find_anchors_merged_where_everything_is_alike_still_fills_all_slots() -> None:
    rows = [judgment(0, words, 5.0) for words in range(16)]
    merged = found(rows, config=replace(CONFIG, merge_near_duplicates=True))
    assert len(merged.anchors) == NUM_SLOTS
    assert sum(anchor.cluster_size or 0 for anchor in merged.anchors) == 16


def test_find_anchors_merged_without_near_duplicates_is_the_same() -> None:
    config = replace(CONFIG, merge_near_duplicates=True)
    assert found(every_topic(), config=config) == found(every_topic())


def test_find_anchors_of_clear_topics_are_found_again_in_every_resample() -> None:
    rows = [
        judgment(topic, words, 5.0, record_id=f"r{record}")
        for record in range(40)
        for topic in range(15)
        for words in (record % 7,)
    ]
    stable = found(rows, config=replace(CONFIG, num_resamples=3))
    assert [one.adjusted_rand for one in stable.resamples["all"]] == [1.0, 1.0, 1.0]
    assert {slot.name_share for slot in stable.slots} == {1.0}


def test_find_anchors_resampled_records_that_hold_too_little_have_no_figure() -> None:
    # Each topic is one record's: drawing 15 of 15 with replacement leaves some out.
    rows = [judgment(topic, 0, 5.0, record_id=f"r{topic}") for topic in range(15)]
    result = found(rows, config=replace(CONFIG, num_resamples=2))
    assert [one.adjusted_rand for one in result.resamples["all"]] == [None, None]
    assert {slot.name_share for slot in result.slots} == {None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_starts": 0}, "num_starts=0"),
        ({"num_reference_anchors": 16}, r"num_reference_anchors=16 must be in 0\.\.15"),
        ({"near_duplicate_cosine": 0.0}, "near_duplicate_cosine"),
        ({"num_resamples": -1}, "num_resamples=-1"),
        ({"max_resample_strings": 14}, "max_resample_strings=14 must be at least 15"),
    ],
)
def test_anchor_config_out_of_range_is_refused_by_name(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **changes)


def test_find_anchors_takes_equal_strings_for_one_wherever_name_and_reason_part() -> None:
    whole, other = "about 00 words 0", "between the two: about 00 words 0"
    rows = [
        judgment(0, 0, 5.0, dimension="a", reason=f"z: {whole}"),
        judgment(0, 0, 5.0, dimension="a: b", reason=other),
        *[judgment(0, 0, 5.0, dimension="a: z", reason=whole)] * 3,
    ]
    anchors = found([*rows, *every_topic()[30:]]).anchors
    (anchor,) = [anchor for anchor in anchors if not anchor.name.startswith("name")]
    assert (anchor.name, anchor.aliases, anchor.cluster_size) == ("a: b", (("a", 4),), 5)
