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
from mira_megatron.scoring import score
from mira_megatron.stage import Resources, Run, Unit, run_unit

pytest_plugins = ("judged_recipes",)

Make = Callable[..., Recipe]


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
        **settings,
    }


def _run(recipe: Recipe) -> list[Unit]:
    units = score.units(recipe)
    for unit in units:
        run_unit(unit, Run(folder=recipe.run_folder), Resources())
    return units


def _folder(recipe: Recipe, mode: str = "scores_only") -> Path:
    return recipe.run_folder / f"retest/{recipe.rubric}/text-notes/{mode}"


def _summary(recipe: Recipe, mode: str = "scores_only") -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((_folder(recipe, mode) / "agreement.json").read_bytes())
    return summary


def test_retest_pays_for_the_second_answers_alone_and_sends_other_seeds(
    judged_recipe: Make, scorer: NoteScorer
) -> None:
    recipe = judged_recipe(score=_judge(scorer, retest_records=8))
    of_source, retest = score.units(recipe)
    run = Run(folder=recipe.run_folder)
    run_unit(of_source, run, Resources())
    corpus_seeds = {body["seed"] for body in scorer.bodies}
    assert len(scorer.bodies) == 20
    manifest = run_unit(retest, run, Resources())
    assert len(scorer.bodies) == 28
    assert corpus_seeds.isdisjoint(body["seed"] for body in scorer.bodies[20:])
    assert manifest.counts.totals == {"first: ok": 8, "again: ok": 8}
    assert manifest.counts.num_in == 8
    first, again = (
        {
            row["record_id"]: row["scores"]
            for path in _folder(recipe).glob(f"{asking}-notes-*.parquet")
            for row in pq.read_table(path).to_pylist()
        }
        for asking in ("first", "again")
    )
    assert set(first) == set(again)
    rated = {
        row["record_id"]: row["scores"]
        for path in recipe.run_folder.glob("ratings/*/notes/part-*.parquet")
        for row in pq.read_table(path).to_pylist()
    }
    assert first.items() <= rated.items()


def test_retest_of_a_judge_that_answers_otherwise_with_another_seed_says_so(
    judged_recipe: Make, scorer: NoteScorer
) -> None:
    first: dict[int, int] = {}  # the seed that a note was first asked about with
    scorer.digit = lambda note, slot, seed: (
        note % 11 if seed == first.setdefault(note, seed) else 10 - note % 11
    )
    recipe = judged_recipe(score=_judge(scorer))
    _run(recipe)
    summary = _summary(recipe)
    assert summary["agreement"] == pytest.approx(-1)
    assert summary["mean_abs_difference"] > 4
    assert (summary["num_records"], summary["answer_mode"]) == (20, "scores_only")
    table = pq.read_table(_folder(recipe) / "agreement.parquet")
    assert table["rho"].to_pylist() == [pytest.approx(-1)] * NUM_SLOTS


def test_retest_is_measured_of_full_answers_too(judged_recipe: Make, scorer: NoteScorer) -> None:
    recipe = judged_recipe(score=_judge(scorer, answer_mode="full"))
    _run(recipe)
    assert _summary(recipe, "full")["agreement"] == pytest.approx(1)
    assert len(scorer.bodies) == 40


@pytest.mark.parametrize(
    "settings",
    [{"retest_records": 0}, {"temperature": 0}, {"answer_mode": "expected", "temperature": 0}],
)
def test_retest_that_is_turned_off_or_tells_nothing_asks_nothing(
    judged_recipe: Make, scorer: NoteScorer, settings: dict[str, Any]
) -> None:
    (of_source,) = score.units(judged_recipe(stages=(), score=_judge(scorer, **settings)))
    assert of_source.name == "notes"


def test_retest_of_rules_is_not_measured(judged_recipe: Make) -> None:
    (of_source,) = score.units(judged_recipe(stages=()))
    assert of_source.name == "notes"


def test_retest_of_a_temperature_left_to_the_server_is_measured(
    judged_recipe: Make, scorer: NoteScorer
) -> None:
    judge = _judge(scorer, temperature=0, request_fields={"temperature": None})
    assert len(score.units(judged_recipe(stages=(), score=judge))) == 2


def test_retest_changes_no_rating(judged_recipe: Make, scorer: NoteScorer) -> None:
    with_retest, _ = score.units(judged_recipe(score=_judge(scorer)))
    (without,) = score.units(judged_recipe(stages=(), score=_judge(scorer, retest_records=0)))
    assert (with_retest.config, with_retest.upstream) == (without.config, without.upstream)


def test_retest_takes_a_few_more_failures_than_the_corpus(
    judged_recipe: Make, scorer: NoteScorer
) -> None:
    first: dict[int, int] = {}  # the seed that a note was first asked about with
    scorer.digit = lambda note, slot, seed: (
        77 if seed != first.setdefault(note, seed) and note < 2 else (note + slot) % 11
    )
    recipe = judged_recipe(score=_judge(scorer, max_failed_fraction=0))
    manifest = [
        run_unit(unit, Run(folder=recipe.run_folder), Resources()) for unit in score.units(recipe)
    ][-1]
    assert manifest.counts.totals["again: ok"] == 18
    assert _summary(recipe)["agreement"] == pytest.approx(1)


def test_retest_counts_under_a_ceiling(judged_recipe: Make, scorer: NoteScorer) -> None:
    # 20 answers of 9 tokens; a request is 900 at most, so the 21st is the first not sent.
    recipe = judged_recipe(score=_judge(scorer, output_token_ceiling=180 + 899, max_in_flight=1))
    with pytest.raises(ValueError, match="output_token_ceiling"):
        _run(recipe)
    assert len(scorer.bodies) == 20


def test_retest_of_a_shared_run_is_done_by_whoever_comes_first(
    judged_recipe: Make, scorer: NoteScorer
) -> None:
    recipe = judged_recipe(score=_judge(scorer, retest_records=8))
    run, shared = Run(folder=recipe.run_folder), Resources(is_shared=True)
    made = [run_unit(unit, run, shared) for unit in score.units(recipe)]
    num_asked = len(scorer.bodies)
    assert num_asked == 28
    assert [run_unit(unit, run, shared) for unit in score.units(recipe)] == made
    assert len(scorer.bodies) == num_asked
