from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pyarrow.parquet as pq

from mira_megatron.config import Recipe
from mira_megatron.planning.answer_lengths import answer_lengths
from mira_megatron.planning.jobs import planned_jobs
from mira_megatron.planning.token_counts import PromptTokens
from mira_megatron.rubric.prompt_form import PromptForm

pytest_plugins = ("labelled_recipes",)

COMPACT = PromptForm(prompt="bare", references=False, answers="compact")


def test_a_scorer_that_answers_in_full_writes_what_it_learnt(
    labelled: Callable[..., Recipe],
) -> None:
    recipe = labelled()
    (job, *_) = planned_jobs(recipe)
    scorer = replace(job, answered=(), taught=job.answered)
    form = job.make_form()
    lengths = answer_lengths(recipe.run_folder, scorer, form, PromptTokens(form.judge, 1.0), 20)
    parts = sorted((recipe.run_folder / job.answered[0]).glob("*.parquet"))
    raw = [text for part in parts for text in pq.read_table(part)["raw"].to_pylist()]
    assert lengths.basis == "20 labels that it learnt from"
    assert round(lengths.total.value) == sum(len(text.encode()) for text in raw)


def test_answers_of_one_score_per_slot_are_as_long_as_an_example(
    labelled: Callable[..., Recipe],
) -> None:
    recipe = labelled()
    (job, *_) = planned_jobs(recipe)
    form = job.make_form()
    form = replace(form, judge=replace(form.judge, form=COMPACT))
    lengths = answer_lengths(recipe.run_folder, job, form, PromptTokens(form.judge, 1.0), 10)
    names = sum(len(f"[A{slot}] {name}: ") for slot, name in enumerate(form.names, start=1))
    assert lengths.basis == "the form of its answers"
    assert 10 * (names + 15 * 3) < lengths.total.value < 10 * (names + 15 * 6)
    assert not lengths.total.is_most
