from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from small_run import ARM, HELD_OUT, SmallRecord, report_workspace, with_arm, write_run

from mira_megatron.report.arm_overlap import drift
from mira_megatron.report.outcomes import (
    JudgedArm,
    JudgedSource,
    Outcome,
    outcomes,
    outcomes_of_decisions,
    read_arm,
)
from mira_megatron.report.score_bins import is_candidate
from mira_megatron.report.source_table import summarise_source, total
from mira_megatron.retention.documents import read_documents

WIKI = [
    SmallRecord(text="kept", score=9.0),
    SmallRecord(text="also kept", score=8.0),
    SmallRecord(text="at the cutoff", score=8.0),
    SmallRecord(text="below", score=2.0),
    SmallRecord(text="held out", score=9.5, is_validation=True),
    SmallRecord(text="unscored", score=None, reason="too_few_slots"),
]
QA = [
    SmallRecord(text="held out", score=9.5),
    SmallRecord(text="validation", score=None, reason="failed", is_validation=True),
]


def judged_arm(folder: Path, *, budget_tokens: int = 20, scope: str = "group") -> JudgedArm:
    recipe = write_run(folder, {"wiki": WIKI, "qa": QA}, budget_tokens=budget_tokens, scope=scope)
    workspace = report_workspace(recipe)
    return read_arm(workspace, ARM, read_documents(workspace, ["wiki", "qa"]))


def judged_under(folder: Path, records: Sequence[SmallRecord], **config: object) -> JudgedArm:
    """Returns an arm with settings of its own over the sources wiki and qa."""
    sources = {"wiki": records, "qa": [HELD_OUT, SmallRecord(text="other", score=4.0)]}
    recipe = with_arm(write_run(folder, sources), "other", **config)
    workspace = report_workspace(recipe)
    return read_arm(workspace, "other", read_documents(workspace, ["wiki", "qa"]))


@pytest.mark.parametrize(
    ("flags", "outcome"),
    [
        ((True, False, False, False, True), Outcome.KEPT),
        ((False, True, True, False, False), Outcome.HELD_OUT),
        ((False, False, True, True, False), Outcome.REPEATS_HELD_OUT),
        ((False, False, False, True, False), Outcome.IN_ANOTHER_ARM),
        ((False, False, False, False, False), Outcome.NO_SCORE),
        ((False, False, False, False, True), Outcome.NOT_SELECTED),
    ],
)
def test_outcome_is_the_first_condition_that_holds(
    flags: tuple[bool, bool, bool, bool, bool], outcome: Outcome
) -> None:
    kept, held_out, repeats, in_other, scored = (np.array([flag]) for flag in flags)
    found = outcomes(
        is_kept_D=kept,
        is_held_out_D=held_out,
        repeats_held_out_D=repeats,
        is_in_another_arm_D=in_other,
        is_scored_D=scored,
    )
    assert found.tolist() == [outcome]


def test_documents_of_a_run_get_outcomes_and_reasons(tmp_path: Path) -> None:
    arm = judged_arm(tmp_path)
    wiki, qa = arm.sources
    kept_tie = 1 if wiki.outcomes_D[1] == Outcome.KEPT else 2  # the seed decides which
    cutoff = "the cutoff 8.000 of group text-wiki"
    assert wiki.reason(0) == wiki.reason(kept_tie) == f"kept: not below {cutoff}"
    assert wiki.reason(3 - kept_tie) == f"at {cutoff}, behind it by the tie rule"
    assert wiki.reason(3) == f"below {cutoff}"
    assert wiki.reason(4) == "held out for validation"
    assert wiki.reason(5) == "no score: too_few_slots"
    assert qa.reason(0) == "repeats a held-out text"  # held out in wiki, repeated in qa
    assert qa.reason(1) == "held out for validation"


def test_reason_under_a_budget_too_small_says_so(tmp_path: Path) -> None:
    wiki, _ = judged_arm(tmp_path, budget_tokens=9).sources
    assert wiki.scope.cutoff is None
    assert wiki.reason(0) == "the budget of group text-wiki holds no document"


@pytest.mark.parametrize(
    ("scope", "names"),
    [
        ("global", ["all sources"]),
        ("group", ["group text-qa", "group text-wiki"]),
        ("source", ["source qa", "source wiki"]),
    ],
)
def test_scopes_are_named_for_people(tmp_path: Path, scope: str, names: list[str]) -> None:
    arm = judged_arm(tmp_path, scope=scope)
    assert sorted(entry.name for entry in arm.scopes) == names
    assert sorted(source for entry in arm.scopes for source in entry.sources) == ["qa", "wiki"]


def test_source_summary_counts_every_record_once(tmp_path: Path) -> None:
    arm = judged_arm(tmp_path)
    wiki, qa = (summarise_source(judged) for judged in arm.sources)
    assert (wiki.num_kept, wiki.num_not_selected) == (2, 2)
    assert (wiki.num_held_out, wiki.num_no_score) == (1, 1)
    assert (wiki.tokens_kept, wiki.num_tokens) == (20, 60)
    assert wiki.mean_score == pytest.approx((9 + 8 + 8 + 2 + 9.5) / 5)
    assert (qa.num_repeats_held_out, qa.num_held_out, qa.num_no_score) == (1, 1, 0)
    assert total([wiki, qa]).num_records == 8


def test_score_of_a_record_is_found_in_any_source(tmp_path: Path) -> None:
    arm = judged_arm(tmp_path)
    assert arm.score_of("qa-0000") == 9.5
    assert arm.score_of("wiki-0005") is None
    assert arm.score_of("unknown") is None
    assert arm.score_of(None) is None


def test_outcomes_are_those_that_the_selection_wrote() -> None:
    names = ("kept", "held_out", "no_score", "not_selected", "denied_by_licence", "beyond_cap")
    codes = np.array([0, 4, 5, 3, 1], dtype=np.uint8)
    assert outcomes_of_decisions(codes, names).tolist() == [
        Outcome.KEPT,
        Outcome.DENIED,
        Outcome.BEYOND_CAP,
        Outcome.NOT_SELECTED,
        Outcome.HELD_OUT,
    ]


def test_documents_of_an_excluded_source_are_no_candidates(tmp_path: Path) -> None:
    arm = judged_under(tmp_path, WIKI, excluded=["wiki"])
    wiki, qa = arm.sources
    assert wiki.outcomes_D.tolist() == [Outcome.NOT_TRAINED_ON] * 4 + [
        Outcome.HELD_OUT,
        Outcome.NOT_TRAINED_ON,
    ]
    assert wiki.reason(0) == "not trained on: its source is excluded"
    found = drift(arm, {"wiki": "text", "qa": "text"}, {})
    assert (found.candidates.num_documents, found.candidates.tokens) == (1, 10)  # of qa
    row = summarise_source(wiki)
    assert (row.num_not_trained_on, row.num_no_score, row.num_held_out) == (5, 0, 1)
    assert (row.num_not_trained_on + row.num_held_out, total([row]).num_not_trained_on) == (6, 5)
    assert [int(is_candidate(judged).sum()) for judged in (wiki, qa)] == [0, 1]


def reasons(judged: JudgedSource) -> list[str]:
    return [judged.reason(document) for document in range(len(judged.outcomes_D))]


def test_score_above_a_cutoff_that_floors_made_is_not_said_to_be_below_it(tmp_path: Path) -> None:
    records = [HELD_OUT, *(SmallRecord(text=f"{n}", score=float(n)) for n in (9, 8, 2))]
    arm = judged_under(tmp_path, records, scope="global", budget_tokens=19, floor_tokens={"qa": 10})
    wiki, qa = arm.sources
    assert (wiki.scope.cutoff, wiki.scope.is_cut_by_floors) == (4.0, True)
    assert qa.reason(1) == "kept for its source’s floor"
    why = "reserved by no floor, and what floors leave of the budget of all sources holds no"
    assert [reason.startswith(why) for reason in reasons(wiki)[1:]] == [True] * 3


def test_floor_beside_a_ranking_keeps_what_is_below_the_cutoff(tmp_path: Path) -> None:
    records = [HELD_OUT, *(SmallRecord(text=f"{n}", score=float(n)) for n in (9, 8, 2))]
    floors = {"qa": 10, "wiki": 10}
    arm = judged_under(tmp_path, records, scope="global", budget_tokens=30, floor_tokens=floors)
    wiki, qa = arm.sources
    cutoff = "the cutoff 8.000 of all sources"
    assert qa.reason(1) == f"kept for its source’s floor, though below {cutoff}"
    assert reasons(wiki)[1:] == [f"kept: not below {cutoff}"] * 2 + [f"below {cutoff}"]


def test_unscored_records_at_their_source_s_median_are_told_by_it(tmp_path: Path) -> None:
    scored = [SmallRecord(text=f"{n}", score=float(n)) for n in range(1, 8)]
    unscored = [SmallRecord(text=f"no {n}", score=None, reason="unparsed") for n in range(4)]
    arm = judged_under(
        tmp_path,
        [HELD_OUT, *scored, *unscored],
        scope="source",
        budget_tokens=60,  # wiki's part holds three above the median 4, and two at it
        nulls="source_median",
    )
    wiki, _ = arm.sources
    assert (wiki.scope.cutoff, wiki.score_of_unscored) == (4.0, 4.0)
    tail = "; without a score, it is ranked at its source’s median 4.000"
    cutoff = "the cutoff 4.000 of source wiki"
    told = {
        Outcome.KEPT: f"kept: not below {cutoff}{tail}",
        Outcome.NOT_SELECTED: f"at {cutoff}, behind it by the tie rule{tail}",
    }
    decided = [Outcome(number) for number in wiki.outcomes_D[8:]]
    assert set(decided) == set(told)  # some of either
    assert reasons(wiki)[8:] == [told[outcome] for outcome in decided]
    assert reasons(wiki)[1] == f"below {cutoff}"


def test_median_is_that_of_the_candidates_alone(tmp_path: Path) -> None:
    lower = [SmallRecord(text=f"{score}", score=score) for score in (1.0, 1.5)]
    records = [*WIKI, *lower]  # candidates 9, 8, 8, 2, 1.5, 1; the 9.5 is held out
    wiki, _ = judged_under(tmp_path, records, budget_tokens=30, nulls="source_median").sources
    assert wiki.score_of_unscored == 2.0


def test_unscored_record_kept_at_random_has_no_place_in_the_ranking(tmp_path: Path) -> None:
    arm = judged_under(tmp_path, WIKI, budget_tokens=1000, nulls="keep_random_share")
    wiki, _ = arm.sources
    assert wiki.score_of_unscored is None
    assert wiki.reason(5) == "kept without a score: drawn at random, as the arm treats those"


def test_plain_arm_is_told_in_three_sentences(tmp_path: Path) -> None:
    assert judged_arm(tmp_path).told == (
        "The budget of 20 tokens is shared among the scopes in proportion to their candidate "
        "tokens.",
        "Candidates are all records but those held out for validation and their repeats.",
        "Records without a score are not kept.",
    )


def test_arm_tells_what_decides_beside_rank_and_budget(tmp_path: Path) -> None:
    mask = tmp_path / "licence.csv"
    mask.write_text("record_id,keep\nwiki-0000,0\n")
    arm = judged_under(
        tmp_path,
        WIKI,
        budget_tokens=50,
        shares="equal",
        unspent="share",
        nulls="source_median",
        pinned=["qa"],
        floor_tokens={"wiki": 10},
        cap_tokens={"wiki": 30},
        with_masks={"licence": {"path": str(mask), "unlisted": "keep"}},
        without=[ARM],
    )
    told = " ".join(arm.told)
    for sentence in (
        "What pinned sources leave of the 50 tokens is shared among the scopes in equal parts.",
        f"those that {ARM} keeps, and copies of them; those denied by the mask licence.",
        "Records without a score are ranked at the lower median of their source’s candidates.",
        "What a scope cannot spend goes to the others.",
        "Pinned, kept whole: qa.",
        "ranked: wiki 10 tokens.",
        "offers nothing: wiki 30 tokens.",
    ):
        assert sentence in told
    assert "proportion" not in told
