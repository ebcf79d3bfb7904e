from __future__ import annotations

from pathlib import Path

import numpy as np
from small_run import ARM, HELD_OUT, SmallRecord, report_workspace, write_run

from mira_megatron.report.arm_overlap import drift, overlaps, read_languages
from mira_megatron.report.outcomes import JudgedArm, Outcome, read_arm
from mira_megatron.retention.documents import read_documents

RECORDS = [
    HELD_OUT,
    SmallRecord(text="a", score=9.0, num_tokens=10, meta='{"language": "Python"}'),
    SmallRecord(text="b", score=8.0, num_tokens=20, meta='{"lang": "C"}'),
    SmallRecord(text="c", score=7.0, num_tokens=40, meta='["language"]'),
    SmallRecord(text="d", score=6.0, num_tokens=80, meta="no JSON"),
]
KEPT = int(Outcome.KEPT)


def judged(folder: Path, budget: int) -> JudgedArm:
    recipe = write_run(folder, {"wiki": RECORDS}, budget_tokens=budget)
    workspace = report_workspace(recipe)
    return read_arm(workspace, ARM, read_documents(workspace, ["wiki"]))


def test_overlap_is_counted_in_tokens(tmp_path: Path) -> None:
    (pair,) = overlaps([judged(tmp_path / "a", 30), judged(tmp_path / "b", 70)])
    assert (pair.tokens_in_both, pair.tokens_in_either) == (30, 70)
    assert (pair.tokens_of_arm, pair.tokens_of_other) == (30, 70)
    assert pair.jaccard == 30 / 70


def test_overlap_of_arms_that_keep_nothing_is_unknown(tmp_path: Path) -> None:
    (pair,) = overlaps([judged(tmp_path / "a", 1), judged(tmp_path / "b", 1)])
    assert pair.jaccard is None


def test_drift_compares_lengths_and_families_with_the_candidates(tmp_path: Path) -> None:
    found = drift(judged(tmp_path, 30), {"wiki": "text"}, {})
    assert (found.candidates.num_documents, found.candidates.tokens) == (4, 150)
    assert (found.candidates.mean, found.candidates.median) == (37.5, 30.0)
    assert (found.kept.num_documents, found.kept.mean, found.kept.median) == (2, 15.0, 15.0)
    assert found.families == (("text", 1.0, 1.0),)
    assert found.languages == ()


def test_languages_are_those_that_records_name(tmp_path: Path) -> None:
    recipe = write_run(tmp_path, {"wiki": RECORDS}, budget_tokens=30)
    workspace = report_workspace(recipe)
    documents = read_documents(workspace, ["wiki"])
    languages = read_languages(workspace, ["wiki"], documents, seed=7)
    rows, named = languages["wiki"]
    assert rows.tolist() == [1, 2, 3, 4]
    assert named == ["Python", "C", "none named", "none named"]
    found = drift(read_arm(workspace, ARM, documents), {}, languages)
    assert found.languages == (
        ("none named", 120 / 150, 0.0),
        ("C", 20 / 150, 20 / 30),
        ("Python", 10 / 150, 10 / 30),
    )
    assert found.families == (("adopted, family unknown", 1.0, 1.0),)


def test_languages_of_a_sample_stand_for_all_of_its_source(tmp_path: Path) -> None:
    arm = judged(tmp_path, 30)
    found = drift(arm, {}, {"wiki": (np.array([1, 4]), ["Python", "C"])})
    assert found.languages == (("C", 133 / 150, 0.0), ("Python", 17 / 150, 1.0))
