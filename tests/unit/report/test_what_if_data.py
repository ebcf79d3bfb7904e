from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_run import ARM, HELD_OUT, TABLE, SmallRecord, report_workspace, write_run
from small_scorers import write_mask, write_reliability

from mira_megatron.records import NUM_SLOTS
from mira_megatron.reliability.trimmed_mean import trimmed_mean
from mira_megatron.report import rating_sample
from mira_megatron.report.outcomes import read_arm
from mira_megatron.report.rating_sample import draw, read_rating_samples
from mira_megatron.report.what_if_data import what_if_data
from mira_megatron.retention.documents import read_documents

RATINGS = tuple(float(slot % 11) for slot in range(NUM_SLOTS))


def score(is_masked: Sequence[bool]) -> float:
    counted = [np.array([1000 * rating], np.uint16) for rating in unmasked(is_masked)]
    (mean,), _ = trimmed_mean(counted, trim_fraction=0.1, min_slots=5)
    return float(mean)


def unmasked(is_masked: Sequence[bool]) -> list[float]:
    return [rating for rating, masked in zip(RATINGS, is_masked, strict=True) if not masked]


def data(folder: Path, own_score: float, is_masked: Sequence[bool] | None = None) -> dict[str, Any]:
    """Returns the control's data of a run whose table masks some slots, or has no masks."""
    rated = SmallRecord(text="a", score=own_score, ratings=RATINGS)
    recipe = write_run(folder, {"wiki": [HELD_OUT, rated, replace(rated, text="b")]})
    if is_masked is not None:
        write_reliability(recipe.run_folder, "wiki")
        write_mask(recipe.run_folder, "wiki", ["undecided"] * 15, is_masked)
    workspace = report_workspace(recipe)
    documents = read_documents(workspace, ["wiki"])
    return what_if_data(
        workspace,
        rubric=TABLE,
        seed=7,
        sources=["wiki"],
        documents=documents,
        arms=[read_arm(workspace, ARM, documents)],
        agreements=(),
        min_rho=0.4,
    )


def test_own_numbers_are_those_of_the_certificate(tmp_path: Path) -> None:
    (arm,) = data(tmp_path, score([False] * 15))["arms"]
    (source,) = arm["sources"]
    assert (arm["budgetTokens"], arm["scope"], arm["besideRanking"]) == (20, "group", [])
    assert (source["candidateTokens"], source["candidateDocuments"]) == (20, 2)
    assert (source["tokensKept"], source["documentsKept"]) == (20, 2)


@pytest.mark.parametrize("masked", [None, (), (0,), (1, 2, 7)])
def test_run_s_own_masks_are_those_beside_its_score_table(
    tmp_path: Path, masked: tuple[int, ...] | None
) -> None:
    is_masked = [slot in (masked or ()) for slot in range(NUM_SLOTS)]
    found = data(tmp_path, score(is_masked), None if masked is None else is_masked)
    rule = {"trim": "0.1", "minSlots": 5, "masked": {"wiki": is_masked}}
    assert found["arms"][0]["rule"] == rule


@pytest.mark.parametrize("is_masked", [None, [False] * 15])
def test_scores_that_the_masks_do_not_explain_leave_no_rule(
    tmp_path: Path, is_masked: list[bool] | None
) -> None:
    (arm,) = data(tmp_path, score([True] * 3 + [False] * 12), is_masked)["arms"]
    assert arm["rule"] is None


def test_sample_holds_ratings_in_thousandths_and_marks_missing_ones(tmp_path: Path) -> None:
    ratings = (None, 0.125, *[10.0] * 13)
    records = [HELD_OUT, SmallRecord(text="a", score=1.0, ratings=ratings, num_tokens=77)]
    workspace = report_workspace(write_run(tmp_path, {"wiki": records * 2}))
    documents = read_documents(workspace, ["wiki"])
    sample = read_rating_samples(workspace, TABLE, ["wiki"], documents, seed=7)["wiki"]
    assert sample.num_documents == 2  # copies of one text; the held-out one is not drawn from
    encoded = sample.encoded()
    ratings_RA = np.frombuffer(base64.b64decode(encoded["ratings"]), dtype="<u2").reshape(-1, 15)
    assert ratings_RA[0].tolist() == [65535, 125, *[10_000] * 13]
    tokens = np.frombuffer(base64.b64decode(encoded["tokens"]), dtype="<u4")
    assert tokens.tolist() == [77, 77]


def test_sample_is_as_large_as_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rating_sample, "MAX_RECORDS", 8)
    numbers = range(9)
    records = [
        HELD_OUT,
        *(SmallRecord(text=str(n), score=float(n), num_tokens=n) for n in numbers),
    ]
    workspace = report_workspace(write_run(tmp_path, {"wiki": records, "qa": records[:3]}))
    documents = read_documents(workspace, ["qa", "wiki"])
    samples = read_rating_samples(workspace, TABLE, ["qa", "wiki"], documents, seed=7)
    assert [len(samples[source].rows_R) for source in ("qa", "wiki")] == [2, 4]
    wiki = samples["wiki"]
    drawn = [row - 1 for row in wiki.rows_R.tolist()]
    assert wiki.tokens_R.tolist() == drawn
    assert wiki.ratings_RA[:, 0].tolist() == [1000 * number for number in drawn]  # of any part


def test_drawing_is_even_repeatable_and_in_order() -> None:
    positions = np.arange(100, 200)
    drawn = [draw(positions, 10, f"key {number}").tolist() for number in range(300)]
    assert drawn[0] == draw(positions, 10, "key 0").tolist()
    assert all(each == sorted(set(each)) and len(each) == 10 for each in drawn)
    nums = np.bincount([position - 100 for each in drawn for position in each], minlength=100)
    assert nums.min() > 10  # 30 expected, standard deviation 5.2
    assert nums.max() < 52
    assert draw(positions, 100, "key").tolist() == positions.tolist()
