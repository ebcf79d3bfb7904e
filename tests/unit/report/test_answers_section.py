from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_run import (
    HELD_OUT,
    TABLE,
    SmallRecord,
    finish,
    report_workspace,
    write_report,
    write_run,
)
from test_page import Outline

from mira_megatron import layout
from mira_megatron.atomic_files import write_json
from mira_megatron.config import Recipe
from mira_megatron.report import report
from mira_megatron.report.page import write_report as write_page

RECORDS = [HELD_OUT, SmallRecord(text="one", score=6.0), SmallRecord(text="two", score=3.0)]
ENDPOINT = {
    "engine": "endpoint",
    "endpoints": ["http://127.0.0.1:9/v1"],
    "model": "m",
    "temperature": 0.7,
    "top_p": 0.95,
    "max_tokens": 900,
}
SAMPLED = {**ENDPOINT, "answer_mode": "scores_only", "min_mode_agreement": 0.8}


def scored(folder: Path, score: dict[str, Any], **scorers: dict[str, Any]) -> Recipe:
    recipe = write_run(folder, {"wiki": RECORDS, "web": RECORDS})
    entries = {f"text-{name}": entry for name, entry in scorers.items()}
    return replace(recipe, values={**recipe.values, "score": score, "scorers": entries})


def measured(recipe: Recipe, folder: str, mode: str, agreement: float | None) -> None:
    """Writes what a unit that compares two askings leaves, as far as the page reads it."""
    path = recipe.run_folder / folder
    summary = {"group": "g", "model": "m", "answer_mode": mode, "num_records": 200}
    found = {"agreement": agreement, "mean_abs_difference": 1.25}
    write_json(path / "agreement.json", {"schema_version": 2, **summary, **found})
    finish(path, "score", "g")


def both_measured(recipe: Recipe, group: str, with_full: float | None, again: float) -> None:
    mode = "scores_only"
    measured(recipe, layout.mode_agreement(TABLE, group, mode), mode, with_full)
    measured(recipe, layout.retest(TABLE, group, mode), mode, again)


def row_of(recipe: Recipe, group: str) -> str:
    """Returns the text of a group's row in the table of answers."""
    text = " ".join(Outline(write_report(recipe)).text.split())
    table = text.partition("retest Error Records ")[2]
    return table.partition(f"{group} ")[2].partition(" text-")[0].partition(" Rows and")[0]


def csv_rows(recipe: Recipe) -> dict[str, dict[str, str]]:
    path = recipe.run_folder / "report" / "answers.csv"
    with path.open(newline="") as file:
        return {row["source_group"]: row for row in csv.DictReader(file)}


def test_page_says_what_the_gate_measured_wanted_and_decided(tmp_path: Path) -> None:
    recipe = scored(tmp_path, SAMPLED)
    both_measured(recipe, "text-wiki", 0.87, 0.93)
    both_measured(recipe, "text-web", 0.16, 1.0)
    page = write_report(recipe)
    text = " ".join(Outline(page).text.split())
    wiki = "text-wiki scores_only 0.87 1.25 0.80 accepted 200 0.93 1.25 200"
    web = "text-web scores_only 0.16 1.25 0.80 refused 200 1.00 1.25 200"
    assert wiki in text
    assert web in text
    assert '<a href="#answers">' in page
    rows = csv_rows(recipe)
    assert rows["text-wiki"] == {
        "source_group": "text-wiki",
        "answer_mode": "scores_only",
        "agreement_with_full": "0.870000",
        "min_mode_agreement": "0.8",
        "decision": "accepted",
        "records_compared": "200",
        "test_retest": "0.930000",
        "records_retested": "200",
        "not_measured": "",
    }
    assert rows["text-web"]["decision"] == "refused"


def test_mode_of_which_nothing_could_be_compared_is_refused(tmp_path: Path) -> None:
    recipe = scored(tmp_path, SAMPLED)
    both_measured(recipe, "text-wiki", None, 0.5)
    both_measured(recipe, "text-web", 0.8, 0.5)
    assert row_of(recipe, "text-wiki").startswith("scores_only n/a 1.25 0.80 refused")
    rows = csv_rows(recipe)
    assert (rows["text-wiki"]["agreement_with_full"], rows["text-wiki"]["decision"]) == (
        *("", "refused"),
    )
    assert rows["text-web"]["decision"] == "accepted"  # as much as is wanted is enough


@pytest.mark.parametrize(
    ("score", "told"),
    [
        (
            {"engine": "rule_judge"},
            "full answers are full not measured: the judge is a function of its input",
        ),
        (
            {**ENDPOINT, "temperature": 0, "answer_mode": "scores_only"},
            "scores_only not measured: min_mode_agreement is not set not measured: the judge is a "
            "function of its input",
        ),
        (
            {**ENDPOINT, "retest_records": 0},
            "full answers are full not measured: retest_records is 0",
        ),
    ],
)
def test_page_says_why_something_was_not_measured(
    tmp_path: Path, score: dict[str, Any], told: str
) -> None:
    recipe = scored(tmp_path, score)
    assert row_of(recipe, "text-web") == told
    row = csv_rows(recipe)["text-web"]
    assert row["not_measured"] in told.replace(" not measured", "; not measured")
    assert (row["test_retest"], row["decision"]) == ("", "")


def test_every_group_has_a_row_of_its_own_settings(tmp_path: Path) -> None:
    recipe = scored(tmp_path, {"engine": "rule_judge"}, wiki=ENDPOINT)
    measured(recipe, layout.retest(TABLE, "text-wiki", "full"), "full", 0.64)
    assert row_of(recipe, "text-wiki") == "full answers are full 0.64 1.25 200"
    rows = csv_rows(recipe)
    assert list(rows) == ["text-web", "text-wiki"]
    assert "function of its input" in rows["text-web"]["not_measured"]


def test_page_of_a_recipe_that_does_not_score_says_nothing_of_answers(tmp_path: Path) -> None:
    recipe = write_run(tmp_path, {"wiki": RECORDS})
    assert "retest" not in write_report(recipe)
    assert not (recipe.run_folder / "report" / "answers.csv").exists()


def test_report_waits_for_what_is_measured_and_is_made_anew_for_another_gate(
    tmp_path: Path,
) -> None:
    recipe = scored(tmp_path, SAMPLED)
    (unit,) = report.units(recipe)
    folders = ("mode_agreement", "retest")
    assert [folder for folder in unit.upstream if folder.startswith(folders)] == [
        f"{folder}/{TABLE}/{group}/scores_only"
        for group in ("text-web", "text-wiki")
        for folder in folders
    ]
    lower = replace(
        recipe, values={**recipe.values, "score": {**SAMPLED, "min_mode_agreement": 0.1}}
    )
    (other,) = report.units(lower)
    assert unit.config == other.config
    assert unit.raw_inputs != other.raw_inputs


def test_page_with_answers_is_balanced_and_described(tmp_path: Path) -> None:
    recipe = scored(tmp_path, SAMPLED)
    for group in ("text-wiki", "text-web"):
        both_measured(recipe, group, 0.9, 0.9)
    outline = Outline(write_report(recipe))
    assert (outline.unbalanced, outline.open) == ([], [])
    names = [tag for tag, _ in outline.tags]
    assert names.count("table") == names.count("caption")
    assert all(attrs.get("scope") in ("row", "col") for tag, attrs in outline.tags if tag == "th")
    ids = {attrs["id"] for _, attrs in outline.tags if "id" in attrs}
    assert "answers" in ids


def test_mode_that_is_markup_is_shown_as_text(tmp_path: Path) -> None:
    recipe = scored(tmp_path, {"engine": "rule_judge"})
    (unit,) = report.units(recipe)
    assert isinstance(unit.settings, report.ReportSettings)
    (first, *others) = unit.settings.asked
    first = replace(first, answer_mode="<script>alert('x')</script>")
    settings = replace(unit.settings, asked=(first, *others))
    workspace = report_workspace(recipe)
    write_page(workspace, settings)
    page = (workspace.folder / "index.html").read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page
