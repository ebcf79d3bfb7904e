from __future__ import annotations

from pathlib import Path

import pytest
from small_run import TABLE, write_recipe
from small_scorers import with_scorers, write_reliability

from mira_megatron.report.agreement import is_measured, read_agreement


def test_agreement_counts_anchors_names_and_answers(tmp_path: Path) -> None:
    write_reliability(tmp_path, "wiki")
    found = read_agreement(tmp_path, TABLE, "wiki")
    assert found is not None
    assert [cell.anchor_id for cell in found.followed] == ["A1", "A2", "A3"]
    assert found.num_names_followed == 2
    assert (found.num_records, found.num_parsed, found.num_partial) == (50, 48, 8)
    assert (found.models, found.answer_mode) == (("mira-scorer",), "expected")


def test_agreement_median_counts_an_anchor_without_a_correlation_as_none(tmp_path: Path) -> None:
    write_reliability(tmp_path, "wiki", rhos=[0.9] * 7 + [None] * 8)
    found = read_agreement(tmp_path, TABLE, "wiki")
    assert found is not None
    assert found.median_rho == 0.0
    assert found.median_rho_of_length == pytest.approx(0.3)  # of sizes: most are negative


def test_agreement_about_no_record_has_no_median(tmp_path: Path) -> None:
    write_reliability(tmp_path, "wiki", rhos=[None] * 15, n=0)
    found = read_agreement(tmp_path, TABLE, "wiki")
    assert found is not None
    assert (found.median_rho, found.median_rho_of_length) == (None, None)


def test_agreement_of_an_unfinished_unit_is_not_known(tmp_path: Path) -> None:
    assert read_agreement(tmp_path, TABLE, "wiki") is None


def test_agreement_is_measured_where_there_are_labels_and_a_scorer(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, ["wiki"])
    assert not is_measured(recipe)
    assert is_measured(with_scorers(recipe))
