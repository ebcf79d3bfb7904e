from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st
from small_run import ANCHORS, ARM, HELD_OUT, TABLE, SmallRecord, report_workspace, write_run

from mira_megatron import layout
from mira_megatron.report.examples import (
    DRAWN,
    EXCERPT_CHARS,
    FARTHEST,
    NEAREST,
    Example,
    choose_examples,
    read_examples,
    read_rows,
)
from mira_megatron.report.judged_scopes import Scope
from mira_megatron.report.outcomes import (
    JudgedArm,
    JudgedSource,
    Outcome,
    read_arm,
)
from mira_megatron.retention.documents import read_documents


def judged(source: str, scores: list[float], cutoff: float | None) -> JudgedSource:
    """Returns a source whose documents are kept from the cutoff on."""
    scores_D = np.array(scores, dtype=np.float32)
    is_kept_D = scores_D >= cutoff if cutoff is not None else np.zeros(len(scores), dtype=bool)
    scope = Scope(
        name=f"source {source}",
        budget_tokens=0,
        num_candidates=len(scores),
        candidate_tokens=0,
        num_kept=0,
        tokens_kept=0,
        cutoff=cutoff,
        first_out=None,
        sources=(source,),
    )
    return JudgedSource(
        source=source,
        source_group="text",
        scope=scope,
        record_ids=pa.chunked_array([[f"{source}{number}" for number in range(len(scores))]]),
        tokens_D=np.ones(len(scores), dtype=np.int64),
        scores_D=scores_D,
        is_scored_D=np.ones(len(scores), dtype=bool),
        no_score_reasons=pa.chunked_array([[None] * len(scores)], pa.string()),
        outcomes_D=np.where(is_kept_D, Outcome.KEPT, Outcome.NOT_SELECTED).astype(np.uint8),
        tokens_seen=0,
    )


def arm_of(*sources: JudgedSource) -> JudgedArm:
    return JudgedArm(
        arm=ARM,
        score_table=TABLE,
        scope_kind="source",
        budget_tokens=0,
        tie_rule="",
        without=(),
        scopes=tuple(source.scope for source in sources),
        sources=sources,
    )


def dropped_examples(folder: Path, *records: SmallRecord) -> list[Example]:
    workspace = report_workspace(write_run(folder, {"wiki": [*records, HELD_OUT]}))
    arm = read_arm(workspace, ARM, read_documents(workspace, ["wiki"]))
    choices = choose_examples(arm, is_kept=False, seed=7)
    return read_examples(workspace, TABLE, {"wiki": ANCHORS}, choices)


def test_examples_of_one_source_take_the_three_rules_in_turn() -> None:
    arm = arm_of(judged("a", [9.0, 5.0, 4.0, 3.0, 1.0], cutoff=8.0))
    choices = choose_examples(arm, is_kept=False, seed=7)
    assert [choice.why_shown for choice in choices] == [NEAREST, FARTHEST, DRAWN, NEAREST]
    assert [choice.document for choice in choices][:2] == [1, 4]
    assert {choice.document for choice in choices} == {1, 2, 3, 4}


def test_examples_of_two_sources_show_both_in_turn_with_other_rules() -> None:
    a, b = judged("a", [9.0] * 20, cutoff=8.0), judged("b", [7.0] * 20, cutoff=6.0)
    choices = choose_examples(arm_of(a, b), is_kept=True, seed=7)
    assert [choice.judged.source for choice in choices] == ["a", "b"] * 5
    rules = [choice.why_shown for choice in choices][:6]
    assert rules == [NEAREST, FARTHEST, FARTHEST, DRAWN, DRAWN, NEAREST]


def test_examples_of_a_source_with_too_few_are_filled_from_the_others() -> None:
    few, many = judged("few", [9.0], cutoff=8.0), judged("many", [9.0] * 50, cutoff=8.0)
    none = judged("none", [1.0], cutoff=None)
    choices = choose_examples(arm_of(few, none, many), is_kept=True, seed=7)
    assert [choice.judged.source for choice in choices].count("many") == 9
    assert len(choices) == 10


def test_examples_rank_an_unscored_document_where_the_arm_does() -> None:
    scored = judged("a", [9.0, 6.0, 1.0, 0.0], cutoff=5.0)
    is_scored_D = np.array([True, True, True, False])
    outcomes_D = np.array([Outcome.KEPT] * 2 + [Outcome.NOT_SELECTED] * 2, np.uint8)
    at_median = replace(
        scored, is_scored_D=is_scored_D, outcomes_D=outcomes_D, score_of_unscored=4.0
    )
    choices = choose_examples(arm_of(at_median), is_kept=False, seed=7)
    assert [(choice.document, choice.why_shown) for choice in choices] == [
        (3, NEAREST),
        (2, FARTHEST),
    ]


def test_examples_of_documents_kept_at_random_have_no_distance() -> None:
    kept = judged("a", [9.0, 6.0, 0.0], cutoff=5.0)
    drawn = replace(
        kept,
        is_scored_D=np.array([True, True, False]),
        outcomes_D=np.full(3, Outcome.KEPT, np.uint8),
    )
    choices = choose_examples(arm_of(drawn), is_kept=True, seed=7)
    assert [(choice.document, choice.why_shown) for choice in choices[:2]] == [
        (1, NEAREST),
        (0, FARTHEST),
    ]
    assert (choices[2].document, choices[2].why_shown) == (2, DRAWN)


def test_examples_follow_from_the_seed() -> None:
    arm = arm_of(judged("a", [9.0] * 500, cutoff=8.0))
    first, again, other = (
        [choice.document for choice in choose_examples(arm, is_kept=True, seed=seed)]
        for seed in (7, 7, 8)
    )
    assert first == again
    assert first != other


@given(st.lists(st.lists(st.integers(0, 10), max_size=12), max_size=4), st.booleans())
def test_examples_are_distinct_of_the_side_asked_for_and_as_many_as_there_are(
    scores: list[list[int]], is_kept: bool
) -> None:
    sources = [judged(f"s{i}", [float(v) for v in s], cutoff=6.0) for i, s in enumerate(scores)]
    choices = choose_examples(arm_of(*sources), is_kept=is_kept, seed=1)
    shown = {(choice.judged.source, choice.document) for choice in choices}
    available = sum((value >= 6) == is_kept for values in scores for value in values)
    assert len(shown) == len(choices) == min(10, available)
    assert all((choice.judged.scores_D[choice.document] >= 6) == is_kept for choice in choices)


def test_read_rows_opens_only_the_parts_that_hold_them(tmp_path: Path) -> None:
    records = [SmallRecord(text=f"text {number}", score=5.0) for number in range(6)]
    workspace = report_workspace(write_run(tmp_path, {"wiki": [*records, HELD_OUT]}))
    parts = workspace.upstream_parts(layout.records("wiki"), ".parquet")
    parts[1][0].unlink()  # rows 3 to 5
    rows = read_rows(parts, [3, 3, 1], [6, 0, 2], ["text"])
    assert {number: row["text"] for number, row in rows.items()} == {
        0: "text 0",
        2: "text 2",
        6: HELD_OUT.text,
    }


def test_example_without_a_rating_keeps_the_rationale_as_its_reason(tmp_path: Path) -> None:
    unrated = SmallRecord(
        text="x", score=None, reason="refused", rationale="not measurable: no code"
    )
    _, example = dropped_examples(tmp_path, unrated)  # the one held out is first
    assert (example.score, example.reason) == (None, "no score: refused")
    assert (example.status, example.status_reason) == ("refused", "timed out")
    assert [rating.name for rating in example.ratings] == list(ANCHORS)
    assert {(r.score, r.rationale) for r in example.ratings} == {(None, "not measurable: no code")}


def test_example_text_is_cut_but_its_length_is_known(tmp_path: Path) -> None:
    kept = SmallRecord(text="kept", score=9.0, num_tokens=20)
    _, example = dropped_examples(tmp_path, kept, SmallRecord(text="é" * 1500, score=1.0))
    assert example.excerpt == "é" * EXCERPT_CHARS
    assert example.num_chars == 1500
    assert example.record_id == "wiki-0001"
