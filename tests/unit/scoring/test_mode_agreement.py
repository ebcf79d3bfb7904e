from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from note_scorer import NoteScorer, serving

from mira_megatron.config import Recipe
from mira_megatron.records import NUM_SLOTS
from mira_megatron.rubric.digits import SCORES_REGEX
from mira_megatron.scoring import score
from mira_megatron.stage import Resources, Run, Unit, run_unit

pytest_plugins = ("judged_recipes",)

Make = Callable[..., Recipe]
_FOLDER = "mode_agreement/{rubric}/text-notes/scores_only"


@pytest.fixture
def scorer() -> Iterator[NoteScorer]:
    with serving(NoteScorer()) as served:
        yield served


def _judge(scorer: NoteScorer, **settings: Any) -> dict[str, Any]:
    return {
        "engine": "endpoint",
        "endpoints": [scorer.url],
        "model": "m",
        "temperature": 0.5,
        "retest_records": 0,
        "top_p": 1,
        "max_tokens": 900,
        "answer_mode": "scores_only",
        "min_mode_agreement": 0.8,
        **settings,
    }


def _run(recipe: Recipe) -> list[Unit]:
    units = score.units(recipe)
    for unit in units:
        run_unit(unit, Run(folder=recipe.run_folder), Resources())
    return units


def _folder(recipe: Recipe) -> Path:
    return recipe.run_folder / _FOLDER.format(rubric=recipe.rubric)


def _ratings(recipe: Recipe) -> list[dict[str, Any]]:
    parts = sorted(recipe.run_folder.glob("ratings/*/notes/part-*.parquet"))
    return [row for part in parts for row in pq.read_table(part).to_pylist()]


def test_score_in_a_mode_that_agrees_goes_on_and_rows_say_how_they_were_asked(
    judged_recipe: Make, scorer: NoteScorer
) -> None:
    recipe = judged_recipe(score=_judge(scorer))
    mode_unit, unit = _run(recipe)
    rows = _ratings(recipe)
    assert len(rows) == 20
    assert {row["answer_mode"] for row in rows} == {"scores_only"}
    assert {row["status"] for row in rows} == {"ok"}
    assert {row["prompt_key"] for row in rows} == {unit.config["prompt_key"]}
    assert unit.config["prompt_key"] != mode_unit.config["full_prompt_key"]
    assert all(row["rationales"] == [None] * NUM_SLOTS for row in rows)
    assert all(len(row["raw"].split()) == NUM_SLOTS for row in rows)
    summary = json.loads((_folder(recipe) / "agreement.json").read_bytes())
    assert summary["agreement"] == pytest.approx(1)
    assert summary["mean_abs_difference"] == 0
    assert (summary["num_records"], summary["answer_mode"]) == (20, "scores_only")


def test_score_in_a_mode_that_disagrees_is_refused_with_figure_and_way_out(
    judged_recipe: Make, scorer: NoteScorer
) -> None:
    scorer.digit = lambda note, slot, seed: 10 - (note + slot) % 11
    recipe = judged_recipe(score=_judge(scorer))
    with pytest.raises(
        ValueError,
        match=r"agreement\.json: in group text-notes, answer_mode=scores_only .* of -1\.00 .*"
        r"20 records\), below min_mode_agreement=0\.8\. .*scorers\.text-notes\.answer_mode=full",
    ):
        _run(recipe)
    assert not list(recipe.run_folder.glob("ratings/**/*.parquet"))
    table = pq.read_table(_folder(recipe) / "agreement.parquet")
    assert table["rho"].to_pylist() == [pytest.approx(-1)] * NUM_SLOTS
    # What was measured stands: a lower setting needs no new request.
    num_asked = len(scorer.bodies)
    _run(judged_recipe(stages=(), score=_judge(scorer, min_mode_agreement=-1.0)))
    assert len(scorer.bodies) == num_asked  # the 20 records were all in the sample
    assert len(_ratings(recipe)) == 20


def test_mode_agreement_asks_the_sample_in_full_and_in_the_mode(
    judged_recipe: Make, scorer: NoteScorer
) -> None:
    recipe = judged_recipe(score=_judge(scorer, mode_agreement_records=8, min_mode_agreement=0))
    unit, _ = score.units(recipe)
    manifest = run_unit(unit, Run(folder=recipe.run_folder), Resources())
    digits = [body for body in scorer.bodies if "structured_outputs" in body]
    assert (len(scorer.bodies), len(digits)) == (16, 8)
    assert manifest.counts.totals == {"full: ok": 8, "mode: ok": 8}
    assert manifest.counts.num_in == 8


def test_mode_agreement_setting_neither_asks_nor_changes_ratings_without_a_cheaper_mode(
    judged_recipe: Make, scorer: NoteScorer
) -> None:
    _, gated = score.units(judged_recipe(score=_judge(scorer)))
    (free,) = score.units(judged_recipe(stages=(), score=_judge(scorer, min_mode_agreement=None)))
    (full,) = score.units(judged_recipe(stages=(), score=_judge(scorer, answer_mode="full")))
    assert (gated.config, gated.upstream) == (free.config, free.upstream)
    assert full.config["answer_mode"] == "full"


def test_score_in_a_mode_that_was_not_measured_says_what_measures_it(
    judged_recipe: Make, scorer: NoteScorer
) -> None:
    recipe = judged_recipe(score=_judge(scorer))
    _, unit = score.units(recipe)
    with pytest.raises(ValueError, match=r"agreement\.json: not measured yet\. Run `mira score`"):
        run_unit(unit, Run(folder=recipe.run_folder), Resources())


def test_scores_only_field_of_another_server_goes_before_that_of_vllm(
    judged_recipe: Make, scorer: NoteScorer
) -> None:
    fields = {"structured_outputs": None, "regex": SCORES_REGEX}
    judge = _judge(scorer, min_mode_agreement=None, request_fields=fields, max_failed_fraction=1)
    _run(judged_recipe(score=judge))
    assert all(body["regex"] == SCORES_REGEX for body in scorer.bodies)
    assert not any("structured_outputs" in body for body in scorer.bodies)


def test_scores_only_of_a_server_that_ignores_guidance_is_typed(
    judged_recipe: Make, scorer: NoteScorer
) -> None:
    fields = {"structured_outputs": None}
    judge = _judge(scorer, min_mode_agreement=None, request_fields=fields, max_failed_fraction=1)
    recipe = judged_recipe(score=judge)
    _run(recipe)
    rows = _ratings(recipe)
    assert {(row["status"], row["reason"]) for row in rows} == {
        ("unparsed", "not 15 numbers alone")
    }
    assert all(row["scores"] == [None] * NUM_SLOTS for row in rows)
