from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from small_run import ARM, HELD_OUT, SmallRecord, report_workspace, write_run

from mira_megatron.report import score_bins
from mira_megatron.report.outcomes import JudgedArm, Outcome, read_arm
from mira_megatron.report.score_bins import bin_width, is_candidate, source_bins
from mira_megatron.retention.documents import read_documents

RECORDS = [
    HELD_OUT,
    SmallRecord(text="a", score=7.0, num_tokens=3),
    SmallRecord(text="b", score=2.009, num_tokens=5),
    SmallRecord(text="c", score=7.0, num_tokens=4),
    SmallRecord(text="d", score=None, reason="failed"),
    SmallRecord(text="e", score=2.001, num_tokens=6),
]


def judged_arm(folder: Path) -> JudgedArm:
    recipe = write_run(folder, {"wiki": RECORDS}, budget_tokens=4)
    workspace = report_workspace(recipe)
    return read_arm(workspace, ARM, read_documents(workspace, ["wiki"]))


def test_bins_of_few_scores_are_the_scores_best_first(tmp_path: Path) -> None:
    arm = judged_arm(tmp_path)
    bins = source_bins(arm.sources[0], bin_width(arm))
    expected = tuple(float(np.float32(score)) for score in (7.0, 2.009, 2.001))
    assert (bins.scores, bins.num_documents, bins.tokens) == (expected, (2, 1, 1), (7, 5, 6))


def test_bins_of_many_scores_are_a_hundredth_wide(tmp_path: Path) -> None:
    arm = judged_arm(tmp_path)
    bins = source_bins(arm.sources[0], 0.01)
    assert (bins.scores, bins.num_documents, bins.tokens) == ((7.0, 2.0), (2, 2), (7, 11))


def test_width_is_that_of_bins_only_where_scores_are_many(tmp_path: Path) -> None:
    arm = judged_arm(tmp_path)
    (source,) = arm.sources
    number = score_bins.MAX_DISTINCT + 1
    many = replace(
        source,
        scores_D=np.arange(number, dtype=np.float32),
        is_scored_D=np.ones(number, dtype=np.bool_),
        outcomes_D=np.full(number, Outcome.KEPT, dtype=np.uint8),
    )
    assert (bin_width(arm), bin_width(replace(arm, sources=(many,)))) == (0.0, 0.01)


def test_candidates_are_what_the_arm_chose_from(tmp_path: Path) -> None:
    (source,) = judged_arm(tmp_path).sources
    judged = replace(source, outcomes_D=np.arange(len(Outcome), dtype=np.uint8))
    assert {Outcome(number) for number in np.flatnonzero(is_candidate(judged)).tolist()} == {
        Outcome.KEPT,
        Outcome.NO_SCORE,
        Outcome.NOT_SELECTED,
        Outcome.BEYOND_CAP,
    }
