from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from note_scorer import NoteScorer, serving

from mira_megatron.config import Recipe
from mira_megatron.records import NUM_SLOTS, Anchor
from mira_megatron.rubric.digits import SCORES_REGEX
from mira_megatron.scoring import score
from mira_megatron.scoring.mode_agreement import agreement, compare
from mira_megatron.stage import Resources, Run, Unit, run_unit

pytest_plugins = ("judged_recipes",)

Make = Callable[..., Recipe]
_FOLDER = "mode_agreement/{rubric}/text-notes/scores_only"
_NAN = float("nan")


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


def _anchors() -> tuple[Anchor, ...]:
    return tuple(
        Anchor(
            anchor_id=f"A{number}",
            name=f"name {number}",
            description=None,
            part=None,
            cluster_size=None,
            aliases=(),
            medoid=None,
            references=(),
            rubric_version="v",
        )
        for number in (1, 2, 3, 4)
    )


def test_compare_takes_each_anchor_over_the_records_that_have_both_scores() -> None:
    full = np.array([[1, 5, 5, 1], [2, 6, 5, 2], [3, _NAN, 5, 3], [4, 7, 5, 4]], float)
    mode = np.array([[2, 9, 1, 7], [4, 8, 2, 7], [6, 8, 3, 7], [8, 7, 4, 7]], float)
    again = np.array([[2, 9, 1, _NAN], [4, 8, 2, _NAN], [6, 8, 3, _NAN], [8, 7, 6, 7]], float)
    found = compare(full, mode, again, anchors=_anchors())
    assert [each.n for each in found] == [4, 3, 4, 4]
    assert [each.rho for each in found] == [pytest.approx(1), pytest.approx(-1), None, None]
    assert [each.reason for each in found] == [None, None, "one_score_in_full", "one_score_in_mode"]
    assert [each.mean_abs_difference for each in found] == [2.5, 2.0, 2.5, 4.5]
    assert [each.n_again for each in found] == [4, 4, 4, 1]
    assert [each.mean_abs_difference_again for each in found] == [0, 0, 0.5, 0]
    assert found[0].rho_again == pytest.approx(1)
    # The third has nothing to rank and is left out; the fourth ranks nothing and counts as 0.
    assert agreement(found) == pytest.approx(0)
    assert agreement(found[:1] + found[2:3]) == pytest.approx(1)


def test_agreement_where_nothing_can_be_compared_is_none() -> None:
    empty = np.empty((0, 4))
    assert agreement(compare(empty, empty, empty, anchors=_anchors())) is None
    same = np.full((5, 4), 7.0)
    assert agreement(compare(same, same, same, anchors=_anchors())) is None


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
    assert summary["agreement_again"] == pytest.approx(1)
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


def test_mode_agreement_asks_the_sample_in_full_in_the_mode_and_with_another_seed(
    judged_recipe: Make, scorer: NoteScorer
) -> None:
    first: dict[int, int] = {}  # the seed that a note was first asked about with
    scorer.digit = lambda note, slot, seed: (
        (note + slot + (seed != first.setdefault(note, seed))) % 11
    )
    recipe = judged_recipe(score=_judge(scorer, mode_agreement_records=8, min_mode_agreement=0))
    unit, _ = score.units(recipe)
    manifest = run_unit(unit, Run(folder=recipe.run_folder), Resources())
    digits = [body for body in scorer.bodies if "structured_outputs" in body]
    assert (len(scorer.bodies), len(digits)) == (24, 16)
    assert len({body["seed"] for body in digits}) == 16  # two of every record
    assert manifest.counts.totals == {"full: ok": 8, "mode: ok": 8, "again: ok": 8}
    assert manifest.counts.num_in == 8
    summary = json.loads((_folder(recipe) / "agreement.json").read_bytes())
    assert summary["mean_abs_difference"] == 0
    assert summary["mean_abs_difference_again"] > 0.9


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
