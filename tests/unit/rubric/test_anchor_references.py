from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from anchor_material import Said, every_topic, found, judgment
from hypothesis import given, settings
from hypothesis import strategies as st

from mira_megatron.records import Reference
from mira_megatron.rubric.anchor_references import score_thirds

# Topic 0 is what is looked at; the others only fill the slots.
_OTHERS = every_topic()[30:]


def _references(said: Sequence[Said]) -> tuple[Reference, ...]:
    """The references of topic 0, whose largest cluster these judgments are."""
    rows = [
        judgment(topic, words, score, record_id=f"r{number}")
        for number, (topic, words, score) in enumerate(said)
    ]
    # Said so often that it is the first slot and lies on its cluster's centre.
    weight = [judgment(0, 9, 5.0, record_id="filler")] * 100
    return found([*rows, *weight, *_OTHERS]).anchors[0].references


def test_references_show_a_low_a_middle_and_a_high_score() -> None:
    chosen = _references([(0, 1, 1.0), (0, 2, 9.0)])
    assert [(one.level, one.score, one.record_id, one.reason) for one in chosen] == [
        ("low", 1.0, "r0", "about 00 words 1"),
        ("middle", 5.0, "filler", "about 00 words 9"),
        ("high", 9.0, "r1", "about 00 words 2"),
    ]


def test_references_of_a_level_is_its_judgment_nearest_to_the_centre() -> None:
    # Scores 0-2 are the low third of 0, 1, 2, 5, 8, 9, 10; the centre is at words 9.
    said = [(0, 1, 0.0), (0, 9, 1.0), (0, 2, 2.0), (0, 3, 8.0), (0, 4, 9.0), (0, 5, 10.0)]
    low, *_ = _references(said)
    assert (low.level, low.score) == ("low", 1.0)


def test_references_with_the_same_words_are_not_shown_twice() -> None:
    # "words 9" is nearest at every level; it is taken by the first, and 5.0 has no other words.
    chosen = _references([(0, 9, 1.0), (0, 1, 1.0), (0, 9, 9.0), (0, 2, 9.0)])
    assert [(one.level, one.reason) for one in chosen] == [
        ("low", "about 00 words 9"),
        ("high", "about 00 words 2"),
    ]


def test_references_of_two_scores_have_no_middle() -> None:
    assert [(one.level, one.score) for one in _references([(0, 1, 8.0)])] == [
        ("low", 5.0),
        ("high", 8.0),
    ]


def test_references_of_one_score_are_one_middle() -> None:
    assert [(one.level, one.score) for one in _references([])] == [("middle", 5.0)]


def test_references_round_scores_to_what_was_written() -> None:
    # On disk a score is a float32, in which 7.3 is 7.30000019.
    assert _references([(0, 1, 7.3)])[-1].score == 7.3


@pytest.mark.parametrize(
    ("distinct", "low", "middle", "high"),
    [
        ([0, 5, 10], [0], [5], [10]),
        ([0, 7, 8, 9], [0, 7], [8], [9]),
        ([1, 2, 3, 4, 5, 6], [1, 2], [3, 4], [5, 6]),
    ],
)
def test_score_thirds_are_of_the_distinct_scores(
    distinct: list[float], low: list[float], middle: list[float], high: list[float]
) -> None:
    thirds = dict(score_thirds(np.array(distinct, np.float32)))
    assert {level: scores.tolist() for level, scores in thirds.items()} == {
        "low": low,
        "middle": middle,
        "high": high,
    }


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.just(0), st.integers(0, 8), st.integers(0, 10).map(float))))
def test_references_rise_and_name_no_judgment_twice(said: list[Said]) -> None:
    chosen = _references(said)
    scores = [one.score for one in chosen]
    assert scores == sorted(set(scores))
    assert len({one.record_id for one in chosen}) == len(chosen) <= 3
